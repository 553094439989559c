"""Compiles the kernels when grulab is installed. Without a C compiler it goes on: nn.GRU runs then."""

import importlib.util
import subprocess
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
        """Compile; say in one line if that is not possible."""
        spec = importlib.util.spec_from_file_location("library", Path(self.root) / _LIBRARY)
        assert spec
        assert spec.loader
        library = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(library)
        # A wheel is made without a trace in the checkout, whose own library may be in use.
        path = library.PATH if version == "editable" else Path(tempfile.mkdtemp()) / library.PATH.name
        try:
            library.build(path)
        except (OSError, subprocess.CalledProcessError) as error:
            why = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            self.app.display_warning(f"the fused kernels were not built, so nn.GRU runs: {why[0] if why else error}")
            return
        if version == "editable":
            return
        build_data["force_include"][str(path)] = f"grulab/kernels/{path.name}"
        build_data["pure_python"] = False
        # It is called by ctypes: any Python of this platform can.
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
