"""YAMLs of a user (--config-dir): each is checked before Hydra merges it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from segtrain.errors import ConfigError
from segtrain.run.plain_yaml import check_plain, first_line, parse_yaml, read_text


def checked_folder(config_dir: str) -> Path:
    """The resolved path of --config-dir. ConfigError if it is not a folder, or if one of its YAMLs has the
    name of a shipped one."""
    # Path raises on an unknown user behind ~ and on links in a circle; os.path leaves both as they are.
    folder = Path(os.path.realpath(os.path.expanduser(config_dir)))
    if not folder.is_dir():
        raise ConfigError(f"--config-dir {config_dir} is not a folder")
    shipped = Path(__import__("segtrain.conf", fromlist=["conf"]).__path__[0])
    for path in sorted(folder.glob("*.yaml")) + sorted(folder.glob("*/*.yaml")):
        if (shipped / path.relative_to(folder)).exists():
            raise ConfigError(
                f"{path} has the name of a YAML that segtrain ships and would not be read; rename it"
            )
    return folder


def register_source() -> None:
    """Registers the config source of users' YAMLs with Hydra, under the scheme `checked`."""
    from hydra.core.plugins import Plugins

    Plugins.instance().register(_source_class())


def source_of(folder: Path):
    """The config source of one folder of users' YAMLs."""
    return _source_class()("segtrain", f"checked://{folder}")


def _source_class() -> type:
    """The class of a Hydra config source that checks each YAML before Hydra merges it."""
    from hydra._internal.core_plugins.file_config_source import FileConfigSource
    from hydra.plugins.config_source import ConfigResult, ConfigSource

    class CheckedConfigSource(FileConfigSource):
        @staticmethod
        def scheme() -> str:
            return "checked"

        def load_config(self, config_path: str) -> ConfigResult:
            path = Path(self.path, self._normalize_file_name(config_path))
            if not Path(os.path.realpath(path)).is_relative_to(self.path):
                raise ConfigError(f"{path} lies outside of the folder of --config-dir")
            text = read_text(path)
            header = _header(ConfigSource._get_header_dict, text, path)
            node = parse_yaml(text, path)
            if not isinstance(node, (dict, type(None))):
                raise ConfigError(f"{path} is not a config: it holds no KEY: VALUE lines")
            check_plain(node, path)
            _check_defaults(node, path)
            config = parse_yaml(text, path, _omegaconf)
            return ConfigResult(
                config=config, path=f"checked://{self.path}", provider=self.provider, header=header
            )

    return CheckedConfigSource


def _header(read, text: str, path: Path) -> dict:
    try:
        header = read(text[:512])
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    if "hydra" in str(header.get("package")):
        raise ConfigError(f"{path} has the package {header['package']}; a YAML may set nothing of hydra")
    return header


def _check_defaults(node: Any, path: Path) -> None:
    defaults = node.get("defaults", []) if isinstance(node, dict) else []
    if not isinstance(defaults, list):
        raise ConfigError(
            f"{path}: defaults is {defaults!r}; allowed: a list, such as [override /model: unet]"
        )
    if "hydra" in str(defaults):
        raise ConfigError(f"{path}: defaults names hydra; a YAML may set nothing of hydra")


def _omegaconf(file):
    """The YAML as OmegaConf reads it: 1e-3 is a number, and ValueError for a repeated key."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.load(file)
    except OmegaConfBaseException as error:
        raise ValueError(first_line(error)) from error
