"""The config as a user gives it: files, which are read strictly, and values on the command line.

For the workflow's parser: standard library and PyYAML only.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from .errors import InputError


class _Strict(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool, type(None))):
                continue
            if key in seen:
                raise InputError(
                    f"key {key!r} stands twice, in lines {seen[key]} and {key_node.start_mark.line + 1}; keep one."
                )
            seen[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep=deep)


def check_files(paths: Iterable[str | Path]) -> None:
    """Check that config files are UTF-8 and YAML, of keys at the top level that each stand once. Raises InputError."""
    for path in paths:
        try:
            found = yaml.load(Path(path).read_text(encoding="utf-8"), _Strict)  # noqa: S506
        except FileNotFoundError:
            continue  # Snakemake says so
        except InputError as error:
            raise InputError(f"config: {path}: {error}") from None
        except UnicodeDecodeError as error:
            raise InputError(
                f"config: {path} isn't UTF-8 (byte {error.object[error.start]:#04x} at {error.start}); save it so."
            ) from None
        except RecursionError:
            raise InputError(f"config: {path} is nested too deep; config/README.md has all keys.") from None
        except (OSError, yaml.YAMLError) as error:
            mark = getattr(error, "problem_mark", None)
            where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            problem = getattr(error, "problem", None) or str(error).splitlines()[0]
            raise InputError(
                f"config: {path}{where} is no YAML: {problem}. Indent with blanks, never with tabs."
            ) from None
        if not isinstance(found, dict):
            what = "empty" if found is None else f"a {type(found).__name__}"
            raise InputError(f"config: {path} is {what}; keys such as 'experiment: …' are needed at its top level.")


def as_yaml(config: dict[str, Any], from_command_line: Mapping[str, Any]) -> None:
    """Read, in place, what lists and mappings on the command line hold as YAML does; Snakemake leaves it text."""
    for key, value in from_command_line.items():
        if isinstance(value, (list, Mapping)) and key in config:
            config[key] = _read(config[key], value)


def _read(value: Any, given: Any) -> Any:
    if isinstance(given, Mapping) and isinstance(value, dict):
        return value | {key: _read(value[key], inner) for key, inner in given.items() if key in value}
    if isinstance(given, list) and isinstance(value, list):
        return [_read(inner, inner) for inner in value]
    return yaml.safe_load(value) if isinstance(value, str) else value
