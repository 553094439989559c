"""Compiles the kernels when grulab is installed. Without a C compiler the installation continues; nn.GRU runs."""

import importlib.util
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_LIBRARY = Path("src/grulab/kernels/library.py")


class KernelsHook(BuildHookInterface[Any]):
    """Adds the compiled library to a wheel, or to the checkout of an editable installation."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the kernels; warn in one line if that fails."""
        spec = importlib.util.spec_from_file_location("library", Path(self.root) / _LIBRARY)
        assert spec
        assert spec.loader
        library = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(library)
        # Building a wheel must not write to the checkout, whose own library may be in use.
        self._folder = tempfile.TemporaryDirectory()
        path = library.PATH if version == "editable" else Path(self._folder.name) / library.PATH.name
        if failure := library.try_to_build(path):
            self.app.display_warning(f"{failure}; nn.GRU runs")
            return
        if version == "editable":
            return
        build_data["force_include"][str(path)] = f"grulab/kernels/{path.name}"
        build_data["pure_python"] = False
        # ctypes loads the library, so one wheel serves every Python version on this platform.
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
