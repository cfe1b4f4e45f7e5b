"""Where software is written: who writes, repositories, issues, pull requests, and what is said and shipped there."""

from __future__ import annotations

from headwater.canonical.schema import Canonical, Instant, Part


class User(Canonical):
    """Somebody, or something, that acts at the provider."""

    id: str
    login: str | None = None
    name: str | None = None
    email: str | None = None
    kind: str | None = None  # user, bot, organization
    company: str | None = None
    location: str | None = None
    active: bool | None = None
    site_admin: bool | None = None
    url: str | None = None
    created_at: Instant | None = None
    updated_at: Instant | None = None


class Organization(Canonical):
    """A body that owns repositories or teams."""

    id: str
    login: str | None = None
    name: str | None = None
    description: str | None = None
    email: str | None = None
    url: str | None = None
    created_at: Instant | None = None
    updated_at: Instant | None = None


class Repository(Canonical):
    """A place where code is kept."""

    id: str
    name: str | None = None
    full_name: str | None = None
    owner: str | None = None
    description: str | None = None
    private: bool | None = None
    fork: bool | None = None
    archived: bool | None = None
    default_branch: str | None = None
    language: str | None = None
    license: str | None = None
    topics: tuple[str, ...] | None = None
    stars: int | None = None
    forks: int | None = None
    open_issues: int | None = None
    size_kilobytes: int | None = None
    url: str | None = None
    created_at: Instant | None = None
    updated_at: Instant | None = None
    pushed_at: Instant | None = None


class Label(Part):
    """A word hung on an issue."""

    id: str | None = None
    name: str | None = None
    color: str | None = None


class Issue(Canonical):
    """Something to be done or discussed."""

    id: str
    number: int | None = None
    repository: str | None = None
    project: str | None = None
    title: str | None = None
    body: str | None = None
    state: str | None = None
    state_reason: str | None = None
    priority: str | None = None
    author: str | None = None
    assignees: tuple[str, ...] | None = None
    labels: tuple[Label, ...] | None = None
    milestone: str | None = None
    parent: str | None = None
    comments: int | None = None
    locked: bool | None = None
    url: str | None = None
    created_at: Instant | None = None
    updated_at: Instant | None = None
    closed_at: Instant | None = None
    due_at: Instant | None = None


class PullRequest(Canonical):
    """A change that asks to be merged."""

    id: str
    number: int | None = None
    repository: str | None = None
    title: str | None = None
    body: str | None = None
    state: str | None = None
    draft: bool | None = None
    merged: bool | None = None
    author: str | None = None
    assignees: tuple[str, ...] | None = None
    reviewers: tuple[str, ...] | None = None
    labels: tuple[Label, ...] | None = None
    milestone: str | None = None
    head_branch: str | None = None
    head_sha: str | None = None
    base_branch: str | None = None
    base_sha: str | None = None
    merge_commit_sha: str | None = None
    additions: int | None = None
    deletions: int | None = None
    changed_files: int | None = None
    commits: int | None = None
    comments: int | None = None
    url: str | None = None
    created_at: Instant | None = None
    updated_at: Instant | None = None
    closed_at: Instant | None = None
    merged_at: Instant | None = None


class Comment(Canonical):
    """What somebody said about an issue, a pull request or a commit."""

    id: str
    repository: str | None = None
    subject: str | None = None  # id of what it is about
    subject_kind: str | None = None
    author: str | None = None
    body: str | None = None
    path: str | None = None  # file, for a comment on code
    line: int | None = None
    url: str | None = None
    created_at: Instant | None = None
    updated_at: Instant | None = None


class Commit(Canonical):
    """One change of a repository's tree."""

    id: str  # its hash
    repository: str | None = None
    message: str | None = None
    author: str | None = None
    author_name: str | None = None
    author_email: str | None = None
    committer: str | None = None
    parents: tuple[str, ...] | None = None
    url: str | None = None
    authored_at: Instant | None = None
    committed_at: Instant | None = None


class Release(Canonical):
    """A version made public."""

    id: str
    repository: str | None = None
    tag: str | None = None
    name: str | None = None
    body: str | None = None
    draft: bool | None = None
    prerelease: bool | None = None
    author: str | None = None
    url: str | None = None
    created_at: Instant | None = None
    published_at: Instant | None = None


SHIPPED = (User, Organization, Repository, Issue, PullRequest, Comment, Commit, Release)
