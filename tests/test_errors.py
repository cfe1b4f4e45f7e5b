"""The tree of errors is as drawn, and every class can speak."""

import inspect
import re

from headwater import errors


def classes():
    members = vars(errors).items()
    return {name: value for name, value in members if inspect.isclass(value) and issubclass(value, Exception)}


def test_the_drawing_names_every_error_once():
    drawn = re.findall(r"\b(\w+Error)\b", errors.__doc__)
    assert sorted(drawn) == sorted(classes())


def test_every_code_is_unique_and_every_docstring_is_a_message():
    codes = [value.code for value in classes().values()]
    assert len(set(codes)) == len(codes)
    for value in classes().values():
        assert value.__doc__.strip().endswith("."), value


def test_a_code_begins_with_the_code_of_its_group():
    for value in classes().values():
        parent = value.__mro__[1]
        if parent not in (Exception, errors.HeadwaterError):
            assert value.code.startswith(parent.code + "."), value


def test_the_hint_follows_the_message():
    assert str(errors.UsageError("No.", hint="Try yes.")) == "No. Try yes."
    assert str(errors.FencedError()) == "Another run holds the lease of this stream."


def test_a_near_miss_is_named_and_a_far_one_is_not():
    assert errors.near_miss("cronn", ["cron", "zone"]) == "did you mean `cron`?"
    assert errors.near_miss("xyzzy", ["cron", "zone"]) == ""
