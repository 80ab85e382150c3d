"""Where settings come from, environment and TOML file, and the one line that says what is wrong with them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, TomlConfigSettingsSource

from flows.masking import MASK, may_be_secret, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

PREFIX: Final = "TAILMARK_"
CONFIG_KEY: Final = "TAILMARK_CONFIG"
SYNONYMS: Final[dict[str, tuple[str, ...]]] = {"KAFKA_BOOTSTRAP_SERVERS": ("kafka", "bootstrap_servers")}
"""Variables without the prefix that are read too; the form with the prefix wins, and an empty one is not there."""

FILE_SUFFIX: Final = "_FILE"
"""A variable whose name ends so names a file that holds the value: how containers are given secrets."""

_SEPARATOR: Final = "__"
_Model = TypeVar("_Model", bound=BaseSettings)


class SettingsError(ValueError):
    """A setting that nobody can run with; its text is one line that names the key, the value and the rule."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value of a setting must be, in the words of messages and of the documentation."""

    text: str


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a model.

    Attributes:
        path: Where it is: `("window", "slide_ms")`.
        field: Its type, default and description.
    """

    path: tuple[str, ...]
    field: FieldInfo

    @property
    def default(self) -> Any:  # noqa: ANN401 - of the type of the setting
        """The value where the user gives none."""
        return self.field.get_default(call_default_factory=True)

    @property
    def is_table(self) -> bool:
        """Whether a user names the keys below it, as with `kafka.options`."""
        return isinstance(self.default, dict)

    @property
    def rule(self) -> str:
        """What a value must be; empty where the type says it all."""
        return next((item.text for item in self.field.metadata if isinstance(item, Rule)), "")


def settings_of(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[Setting]:
    """Yield every setting of a model and of the groups in it, in the order they are declared.

    Args:
        model: The settings, or a group of them.
        prefix: Path of the group.

    Yields:
        The settings; groups themselves are not among them.
    """
    for name, field in model.model_fields.items():
        path = (*prefix, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings_of(field.annotation, path)
        else:
            yield Setting(path, field)


def variable(path: tuple[str, ...]) -> str:
    """Name the environment variable of a setting.

    Args:
        path: Where the setting is; a key of librdkafka below `kafka.options` has its dots.

    Returns:
        `TAILMARK_WINDOW__SLIDE_MS` for `("window", "slide_ms")`.
    """
    return PREFIX + _SEPARATOR.join(path).replace(".", "_").upper()


def spelling(path: tuple[str, ...]) -> str:
    """Bring `security_protocol` and `security.protocol`, which name the same option, to one form."""
    return ".".join(path).lower().replace("_", ".")


class EnvironmentSource(PydanticBaseSettingsSource):
    """The settings in a mapping of environment variables.

    Pydantic's own source leaves out variables that it does not know, and here a misspelled one must stop the program.

    Attributes:
        names: The variable that each setting was read from, by the spelling of its dotted key.
    """

    def __init__(self, settings_cls: type[BaseSettings], environ: Mapping[str, str]) -> None:
        """Remember the variables; nothing is read before the call."""
        super().__init__(settings_cls)
        self._environ = environ
        self._settings = {setting.path: setting for setting in settings_of(settings_cls)}
        self.names: dict[str, str] = {}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """Answer pydantic's question for one field; everything is read at once instead."""
        return None, field_name, False

    def text(self, name: str) -> str:
        """Return what a variable holds."""
        return self._environ[name]

    def __call__(self) -> dict[str, Any]:
        """Read all variables.

        Returns:
            Texts in nested dicts, the shape of the model.

        Raises:
            SettingsError: A variable with the prefix is no setting.
        """
        found: dict[tuple[str, ...], str] = {}
        for name, path in SYNONYMS.items():
            if self._environ.get(name):
                found[path], self.names[spelling(path)] = self._environ[name], name
        for name in sorted(self._environ):
            if name.startswith(PREFIX) and name != CONFIG_KEY:
                path, text = self._path(name), self._environ[name]
                if path not in self._settings and name.endswith(FILE_SUFFIX):
                    path, text = self._from_file(name, text)
                found[path], self.names[spelling(path)] = text, name
        tree: dict[str, Any] = {}
        for path, text in found.items():
            *groups, last = path
            group = tree
            for key in groups:
                group = group.setdefault(key, {})
            group[last] = text
        return tree

    def _path(self, name: str) -> tuple[str, ...]:
        """Find the setting that a variable names."""
        path = tuple(name.removeprefix(PREFIX).lower().split(_SEPARATOR))
        if name == name.upper():
            setting = self._settings.get(path)
            if setting is not None and not setting.is_table:
                return path
            table = self._settings.get(path[:-1])
            if table is not None and table.is_table and path[-1]:
                return path
            if (
                name.endswith(FILE_SUFFIX)
                and (*path[:-1], path[-1].removesuffix(FILE_SUFFIX.lower())) in self._settings
            ):
                return path
        value = _shown_unknown(name, self._environ[name])
        raise SettingsError(f"{name}={value}: is not a setting of tailmark{self._hint(name, path)}")

    def _from_file(self, name: str, file: str) -> tuple[tuple[str, ...], str]:
        """Find the setting that a variable with a suffix names, and read its value.

        Raises:
            SettingsError: The file can't be read, or the setting has a value of its own as well.
        """
        plain = name.removesuffix(FILE_SUFFIX)
        if plain in self._environ:
            raise SettingsError(
                f"{name}={file}: {plain} is set as well, and only one of them can hold; unset the other"
            )
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "is not UTF-8"
            raise SettingsError(f"{name}={file}: must name a file that can be read: {reason}") from None
        # Who writes a secret with an editor or with echo adds a line break that is no part of it.
        return self._path(plain), text.removesuffix("\n").removesuffix("\r")

    def _hint(self, name: str, path: tuple[str, ...]) -> str:
        setting = self._settings.get(path)
        if setting is not None and setting.is_table:
            return f"; a key must follow: {variable(path)}{_SEPARATOR}<KEY>"
        known = [variable(key) for key, setting in self._settings.items() if not setting.is_table]
        return _suggestion(name.upper(), known)


def read_settings(model: type[_Model], environ: Mapping[str, str]) -> _Model:
    """Read and validate settings.

    Args:
        model: The class of the settings.
        environ: Environment variables; `TAILMARK_CONFIG` among them names a TOML file.

    Returns:
        The settings; the environment wins over the file, and both over the defaults.

    Raises:
        SettingsError: A key is unknown, a value impossible, or the file can't be read. One line, without secrets.
    """
    environment = EnvironmentSource(model, environ)
    file = _toml(model, environ.get(CONFIG_KEY, ""))
    try:
        return model(_build_sources=((environment, file), {}))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    # Outside of the handler, and so without the cause: pydantic's own text would print what is masked here.
    raise SettingsError(_Complaint(model, environment, file).about(first))


def _toml(model: type[BaseSettings], name: str) -> TomlConfigSettingsSource:
    """Read the TOML file of that name, or nothing when the name is empty."""
    if name and not Path(name).is_file():
        kind = "is a directory" if Path(name).is_dir() else "does not exist"
        msg = f"{CONFIG_KEY}={shown(CONFIG_KEY, name)}: must name a TOML file that can be read, and this {kind}"
        raise SettingsError(msg)
    try:
        return TomlConfigSettingsSource(model, Path(name) if name else None)
    except OSError as error:
        reason = f"can't be read: {error.strerror}"
    except UnicodeDecodeError:
        reason = "isn't UTF-8, so it isn't TOML"
    except TOMLDecodeError as error:
        reason = f"isn't TOML: {error}".replace("\n", " ")
    msg = f"{CONFIG_KEY}={shown(CONFIG_KEY, name)}: {reason}"
    raise SettingsError(msg)


@dataclass(frozen=True, slots=True)
class _Complaint:
    """Turns an error of pydantic into a line about what the user wrote."""

    model: type[BaseSettings]
    environment: EnvironmentSource
    file: TomlConfigSettingsSource

    def about(self, error: ErrorDetails) -> str:
        """Write the line: key, value, rule."""
        context = error.get("ctx", {})
        path = tuple(str(part) for part in error["loc"] if not isinstance(part, int))
        if error["type"] == "extra_forbidden":
            return f"{self._written(path, unknown=True)}: is not a setting of tailmark{self._hint(path)}"
        settings = {setting.path: setting for setting in settings_of(self.model)}
        setting = next((settings[path[:depth]] for depth in (2, 3) if path[:depth] in settings), None)
        if setting is None:
            return f"{self._written(path)}: must be a table of settings"
        if error["type"] != "rule":
            path = path[: len(setting.path) + setting.is_table]
            return f"{self._written(path)}: must be {setting.rule}"
        if context.get("key"):
            path = (*path, context["key"])
        other = context.get("other")
        if other is not None and not self._is_written(path) and self._is_written(other):
            return f"{self._written(other)}: {context['other_rule']}"
        return f"{self._written(path, unknown=context.get('unknown', False))}: {context['rule']}"

    def _written(self, path: tuple[str, ...], *, unknown: bool = False) -> str:
        """Write key and value as the user did, and where, if it wasn't in the environment."""
        key, leaves = ".".join(path), _leaves(self.file.toml_data, ())
        name = self.environment.names.get(spelling(path))
        show = _shown_unknown if unknown else shown
        if name is not None:
            return f"{name}={show(name, self.environment.text(name))}"
        if spelling(path) in leaves:
            return f"{key}={show(key, leaves[spelling(path)])} in {self.file.toml_file_path}"
        if any(leaf.startswith(spelling(path) + ".") for leaf in leaves):
            return f"[{key}] in {self.file.toml_file_path}"
        defaults = {setting.path: setting.default for setting in settings_of(self.model)}
        return f"{key}={shown(key, defaults[path])} (default)" if path in defaults else key

    def _is_written(self, path: tuple[str, ...]) -> bool:
        """Tell whether the user gave this setting; if not, it is not the one to complain about."""
        return spelling(path) in self.environment.names or spelling(path) in _leaves(self.file.toml_data, ())

    def _hint(self, path: tuple[str, ...]) -> str:
        return _suggestion(".".join(path), [".".join(setting.path) for setting in settings_of(self.model)])


def _leaves(table: Mapping[str, Any], prefix: tuple[str, ...]) -> dict[str, Any]:
    """Flatten a TOML document to `{spelling of the key: value}`."""
    leaves: dict[str, Any] = {}
    for key, value in table.items():
        path = (*prefix, key)
        if isinstance(value, dict):
            leaves |= _leaves(value, path)
        else:
            leaves[spelling(path)] = value
    return leaves


def _shown_unknown(name: str, value: object) -> str:
    """Show the value of a key that no setting has, unless it could be a secret under a misspelled name."""
    return MASK if may_be_secret(name) else shown(name, value)


def _suggestion(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f"; did you mean {close[0]}?" if close else ""
