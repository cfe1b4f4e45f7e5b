"""An authorization server made of authlib's own grants, and the API that it guards, on a loopback port."""

import json
import os
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from authlib.oauth2.rfc6749 import (
    AuthorizationServer,
    ClientMixin,
    OAuth2Request,
    TokenMixin,
    grants,
)
from authlib.oauth2.rfc6749.errors import InvalidGrantError
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7636 import CodeChallenge

CLIENT_ID, CLIENT_SECRET = "headwater-test", "client-secret-canary-5521"

MANIFEST = """\
from headwater import Connection, Connector, Permissions, Stream

connector = Connector(
    key="cloud",
    name="Cloud",
    version="0.1.0",
    connection=Connection(
        settings={
            "type": "object",
            "properties": {
                "address": {"type": "string", "title": "Address"},
                "client_id": {"type": "string", "title": "Client id"},
                "client_secret": {"type": "string", "title": "Client secret", "x-secret": True},
            },
            "required": ["address", "client_id"],
            "additionalProperties": False,
        },
        oauth={
            "authorize_url": "{settings.address}/authorize",
            "token_url": "{settings.address}/token",
            "scopes": ["customers"],
            "issuer": "https://cloud.example",
        },
    ),
    permissions=Permissions(http=["{settings.address}/*"]),
    streams=[Stream("customers", mode="poll", schedule="*/15 * * * *")],
)
"""
SYNC = """\
from headwater import Page, SyncRequest, http, ingest, oauth, route, settings


@route(auth="api_key")
async def post(request: SyncRequest) -> Page:
    headers = {"Authorization": f"Bearer {await oauth.access_token()}"}
    answer = await http.get(f"{settings['address']}/customers", headers=headers)
    for one in answer.json():
        ingest.canonical("customer", one, stream="customers", idempotency_key=f"cloud:customer:{one['id']}")
    return Page(cursor=None)
"""


def cloud_project(folder: Path, *, revokes=False):
    """A connector that is authorised by OAuth; `revokes` when it tells where tokens are withdrawn."""
    (folder / "src/api/sync").mkdir(parents=True)
    token_url = '            "token_url": "{settings.address}/token",\n'
    both = token_url + token_url.replace("token_url", "revoke_url").replace("/token", "/revoke")
    (folder / "connector.py").write_text(MANIFEST.replace(token_url, both) if revokes else MANIFEST)
    (folder / "src/api/sync/customers.py").write_text(SYNC)
    return folder


class _Client(ClientMixin):
    def __init__(self, redirect_uris):
        self.redirect_uris = redirect_uris

    def get_client_id(self):
        return CLIENT_ID

    def get_default_redirect_uri(self):
        return None

    def get_allowed_scope(self, scope):
        return scope or ""

    def check_redirect_uri(self, redirect_uri):
        return redirect_uri in self.redirect_uris

    def check_client_secret(self, client_secret):
        return client_secret == CLIENT_SECRET

    def check_endpoint_auth_method(self, method, endpoint):
        return method in ("client_secret_basic", "client_secret_post")

    def check_response_type(self, response_type):
        return response_type == "code"

    def check_grant_type(self, grant_type):
        return grant_type in ("authorization_code", "refresh_token")


class _Code:
    def __init__(self, request):
        payload = request.payload
        self.redirect_uri, self.scope = payload.redirect_uri, payload.scope
        self.code_challenge = payload.data.get("code_challenge")
        self.code_challenge_method = payload.data.get("code_challenge_method")

    def get_redirect_uri(self):
        return self.redirect_uri

    def get_scope(self):
        return self.scope


class _Token(TokenMixin):
    def __init__(self, values, made_at):
        self.values, self.made_at, self.revoked = values, made_at, False

    def check_client(self, client):
        return True

    def get_scope(self):
        return self.values.get("scope", "")

    def get_expires_in(self):
        return self.values["expires_in"]

    def is_revoked(self):
        return self.revoked

    def get_user(self):
        return "ann"

    def get_client(self):
        return None


class _Request(OAuth2Request):
    def __init__(self, method, uri, headers, form):
        super().__init__(method, uri, None, headers)
        self._args = dict(parse_qsl(urlsplit(uri).query))
        self._form = form
        self.payload = BasicOAuth2Payload({**self._args, **form})

    @property
    def args(self):
        return self._args

    @property
    def form(self):
        return self._form


class Provider(AuthorizationServer):
    """The server; its fields may be looked at and changed at any time."""

    def __init__(self):
        super().__init__(scopes_supported=["customers"])
        self.url = ""
        self.client = _Client([])
        self.codes, self.tokens, self.asked = {}, [], []
        self.refusal = None  # a status to answer the next token requests with
        self.held = None  # an event that token requests wait for
        self.withdrawn = []  # the kinds of token that were asked to be withdrawn
        self.revoke_refusal = None  # a status and body to answer that with
        self.revoke_held = None  # an event that such requests wait for
        self.lasts = 3600
        provider = self

        class CodeGrant(grants.AuthorizationCodeGrant):
            TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post"]  # noqa: RUF012

            def save_authorization_code(self, code, request):
                provider.codes[code] = _Code(request)

            def query_authorization_code(self, code, client):
                return provider.codes.get(code)

            def delete_authorization_code(self, authorization_code):
                provider.codes = {name: one for name, one in provider.codes.items() if one is not authorization_code}

            def authenticate_user(self, authorization_code):
                return "ann"

        class RefreshGrant(grants.RefreshTokenGrant):
            INCLUDE_NEW_REFRESH_TOKEN = True
            TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post"]  # noqa: RUF012

            def authenticate_refresh_token(self, refresh_token):
                for one in provider.tokens:
                    if one.values.get("refresh_token") == refresh_token and not one.revoked:
                        return one
                raise InvalidGrantError

            def authenticate_user(self, refresh_token):
                return "ann"

            def revoke_old_credential(self, refresh_token):
                refresh_token.revoked = True  # a rotated one is good no longer

        class Revocation(RevocationEndpoint):
            def query_token(self, token_string, token_type_hint):
                return next((one for one in provider.tokens if one.values.get(token_type_hint) == token_string), None)

            def revoke_token(self, token, request):
                token.revoked = True

        self.register_endpoint(Revocation)
        self.register_grant(CodeGrant, [CodeChallenge(required=True)])
        self.register_grant(RefreshGrant)
        made = iter(range(1_000_000))
        self.register_token_generator(
            "default",
            BearerTokenGenerator(
                lambda **_: f"access-canary-{next(made)}",
                lambda **_: f"refresh-canary-{next(made)}",
                expires_generator=lambda client, grant_type: provider.lasts,
            ),
        )

    def query_client(self, client_id):
        return self.client if client_id == CLIENT_ID else None

    def save_token(self, token, request):
        self.tokens.append(_Token(token, time.monotonic()))

    def send_signal(self, name, *args, **kwargs):
        pass

    def create_oauth2_request(self, request):
        return request

    def handle_response(self, status, body, headers):
        return status, body, headers

    @property
    def good(self):
        """The access tokens that open the API."""
        return [one.values["access_token"] for one in self.tokens if not one.revoked]

    def answer(self, method, path, headers, form):
        uri = self.url + path
        what = urlsplit(path).path
        if what == "/authorize":
            request = _Request(method, uri, headers, form)
            request.user = "ann"
            return self.create_authorization_response(
                request, grant_user="ann", grant=self.get_consent_grant(request, "ann")
            )
        if what == "/token":
            self.asked.append(form.get("grant_type"))
            if self.held is not None:
                self.held.wait(10)
            if self.refusal is not None:
                return self.refusal, {"error": "temporarily_unavailable"}, []
            return self.create_token_response(_Request(method, uri, headers, form))
        if what == "/revoke":
            self.withdrawn.append(form.get("token_type_hint"))
            if self.revoke_held is not None:
                self.revoke_held.wait(10)
            if self.revoke_refusal is not None:
                return *self.revoke_refusal, []
            return self.create_endpoint_response("revocation", _Request(method, uri, headers, form))
        if headers.get("Authorization", "").removeprefix("Bearer ") not in self.good:
            return 401, {"error": "no"}, []
        return 200, [{"id": "c_1", "name": "Ann"}, {"id": "c_2", "name": "Bob"}], []


@contextmanager
def oauth_provider(*redirect_uris):
    provider = Provider()
    provider.client.redirect_uris = list(redirect_uris)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self, form):
            status, body, headers = provider.answer(self.command, self.path, dict(self.headers), form)
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            data = json.dumps(body).encode() if isinstance(body, (dict, list)) else str(body).encode()
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            self._answer({})

        def do_POST(self):
            text = self.rfile.read(int(self.headers["content-length"])).decode()
            self._answer(dict(parse_qsl(text)))

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.url = f"http://127.0.0.1:{server.server_port}"
    before = os.environ.get("AUTHLIB_INSECURE_TRANSPORT")
    os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # on a loopback port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        for event in (provider.held, provider.revoke_held):
            if event is not None:
                event.set()
        server.shutdown()
        server.server_close()
        if before is None:
            del os.environ["AUTHLIB_INSECURE_TRANSPORT"]
