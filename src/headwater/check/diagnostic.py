"""What a check found: diagnostics in the order of their places, and the project where nothing stands in its way."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from headwater.check.code import Code, Severity
from headwater.jsonvalue import JSONValue
from headwater.project import Project


@dataclass(frozen=True, kw_only=True)
class Diagnostic:
    """One problem of a project, at its line."""

    path: str  # below the project's folder
    line: int
    code: str
    severity: Severity
    message: str  # what is wrong
    hint: str  # the near miss, and what to do

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.code} {self.message} {self.hint}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that a check found, sorted by path and line."""

    path: Path  # the project's folder, as it was given
    diagnostics: tuple[Diagnostic, ...]
    project: Project | None  # loaded, where no error stands in its way

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """The diagnostics that keep the project from being loaded."""
        return tuple(one for one in self.diagnostics if one.severity == "error")

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """The diagnostics that do not."""
        return tuple(one for one in self.diagnostics if one.severity == "warning")

    def lines(self) -> list[str]:
        """`path:line: code message` of each diagnostic, its path as it is found from where the check was asked for."""
        return [
            f"{self.path / one.path}:{one.line}: {one.code}{' warning:' if one.severity == 'warning' else ''} "
            f"{one.message} {one.hint}".rstrip()
            for one in self.diagnostics
        ]

    def as_json(self) -> JSONValue:
        """The report for programs."""
        return {
            "path": str(self.path),
            "ok": not self.errors,
            "connector": self.project.connector.key if self.project else None,
            "version": self.project.version if self.project else None,
            "diagnostics": [
                {
                    "path": one.path,
                    "line": one.line,
                    "code": one.code,
                    "severity": one.severity,
                    "message": one.message,
                    "hint": one.hint,
                }
                for one in self.diagnostics
            ],
        }


@dataclass(frozen=True)
class Findings:
    """Collects diagnostics; the same one found twice is one."""

    _found: set[Diagnostic] = field(default_factory=set)

    def add(self, code: Code, path: str, line: int, message: str, *hints: str) -> None:
        """Note a problem; the hints that say something follow each other."""
        self._found.add(
            Diagnostic(
                path=path,
                line=max(line, 1),
                code=code.name,
                severity=code.severity,
                message=message,
                hint=" ".join(_sentence(hint) for hint in hints if hint),
            )
        )

    def has_errors(self) -> bool:
        """Whether anything found so far keeps the project from being loaded."""
        return any(one.severity == "error" for one in self._found)

    def sorted(self) -> tuple[Diagnostic, ...]:
        """All of them, by path, line and code."""
        return tuple(sorted(self._found, key=lambda one: (one.path, one.line, one.code, one.message)))


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]
