"""YAML text -> nodes that know their line, with what makes YAML dangerous refused first.

Aliases can blow a few lines up to gigabytes and tags can name any type: a configuration needs neither, so both are
refused rather than limited. Scalars are not resolved here: what a scalar means follows from the field that it stands
in, not from YAML 1.1's guesses (`no` is a country, `1e6` a number, `12:30` a time of day).
"""

from collections.abc import Iterator

import yaml

from gslb.config.errors import ConfigError
from gslb.model import limits
from gslb.model.grammar import shown

# libyaml's parser is ten times as fast; the pure one is there when PyYAML was built without it.
_Loader: type[yaml.SafeLoader] | type[yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def documents(text: str | bytes, filename: str) -> list[yaml.Node]:
    """The root node of each document that is not empty. Raises ConfigError."""
    decoded = _decode(text, filename)
    problems = []
    try:
        problems = list(_dangers(decoded, filename))
        if not problems:
            return [node for node in yaml.compose_all(decoded, Loader=_Loader) if not _null(node)]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{filename}:{mark.line + 1}" if mark else filename
        context = f" {error.context}" if error.context else ""
        problems.append(f"{where}: not YAML: {error.problem}{context}")
    except yaml.YAMLError as error:
        # A character that YAML does not allow; the error knows only its offset.
        offset = getattr(error, "position", None)
        line = decoded.count("\n", 0, offset) + 1 if isinstance(offset, int) else 1
        problems.append(f"{filename}:{line}: not YAML: it has a character that YAML does not allow: remove it")
    raise ConfigError(problems)


def _decode(text: str | bytes, filename: str) -> str:
    if len(text) > limits.CONFIG_MAX_BYTES:
        raise ConfigError(
            [f"{filename}: {len(text)} bytes: at most {limits.CONFIG_MAX_BYTES} are read, split the file"]
        )
    try:
        if isinstance(text, bytes):
            return text.decode()
        text.encode()
    except UnicodeError as error:
        where = error.start if isinstance(error, UnicodeDecodeError | UnicodeEncodeError) else 0
        newline = b"\n" if isinstance(text, bytes) else "\n"
        line = text[:where].count(newline) + 1  # type: ignore[arg-type]
        raise ConfigError([f"{filename}:{line}: not UTF-8 text: save the file as UTF-8"]) from None
    return text


def unquoted(node: yaml.ScalarNode) -> bool:
    """Whether a scalar stands without quotes, in one line. (The two loaders say it differently: None and '')."""
    return not node.style


def _null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and unquoted(node) and node.value in ("", "~", "null")


def _dangers(text: str, filename: str) -> Iterator[str]:
    """Aliases, tags, and nesting or documents beyond any use; seen in the events, before any node is made."""
    depth = 0
    count = 0
    for event in yaml.parse(text, Loader=_Loader):
        where = f"{filename}:{event.start_mark.line + 1 if event.start_mark else 1}"
        if isinstance(event, yaml.AliasEvent):
            yield f"{where}: the alias *{shown(event.anchor)[1:-1]} is not read: write the value out"
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
            yield f"{where}: the tag {shown(event.tag)} is not read: remove it"
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            count += 1
        if depth > limits.CONFIG_DEPTH_MAX:
            yield f"{where}: nested deeper than {limits.CONFIG_DEPTH_MAX} levels: nothing here needs that"
            return
        if count > limits.CONFIG_DOCUMENTS_MAX:
            yield f"{where}: more than {limits.CONFIG_DOCUMENTS_MAX} documents: split the file"
            return
