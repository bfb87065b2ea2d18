"""Nothing is lost: whole files, names that fit, one writer at a time, full disks, and inputs that stay as they are."""

from __future__ import annotations

import os

import numpy as np
import pytest

from recon import io
from recon.errors import OutputError

# --- inputs stay as they are -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["same", "relative", "symlink", "folder link", "hard link", "link to come"])
def test_no_input_is_written_over(tmp_path, monkeypatch, kind):
    source = tmp_path / "in" / "a.npy"
    source.parent.mkdir()
    np.save(source, np.ones(3))
    target = tmp_path / "b.npy"
    if kind == "same":
        target = source
    elif kind == "relative":
        monkeypatch.chdir(tmp_path)
        target = "in/../in/a.npy"
    elif kind == "symlink":
        target.symlink_to(source)
    elif kind == "folder link":
        (tmp_path / "out").symlink_to(source.parent)
        target = tmp_path / "out/a.npy"
    elif kind == "hard link":
        os.link(source, target)
    else:  # the input is a link to where the result will be
        source.unlink()
        source.symlink_to(target)
    other = tmp_path / "in" / "other.npy"
    with pytest.raises(OutputError, match="would overwrite"):
        io.refuse_overwriting([tmp_path / "free.npy", target], [other, source])
    io.refuse_overwriting([tmp_path / "free.npy"], [other, source, "random"])
