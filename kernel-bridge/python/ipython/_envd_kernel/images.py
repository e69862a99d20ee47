"""Pillow images reach the client: `show()` displays, and `save()` to a path displays what it saves.

Pillow itself is only imported when the user's code does.
"""

import functools
import os
import sys
from importlib.machinery import PathFinder

_KERNEL_PID = os.getpid()


class _AfterImport:
    """Finds a few modules as usual and finishes them right after they have run."""

    def __init__(self, finish):
        self._finish = finish

    def find_spec(self, name, path=None, target=None):
        finish = self._finish.get(name)
        if finish is None:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or not hasattr(spec.loader, "exec_module"):
            return None
        run = spec.loader.exec_module

        def run_and_finish(module):
            run(module)
            try:
                finish(module)
            except Exception:
                # An unknown Pillow without our extras is better than none.
                pass

        spec.loader.exec_module = run_and_finish
        return spec


def install():
    """Waits for Pillow."""
    finish = {"PIL.Image": _finish_image, "PIL.ImageShow": _finish_show}
    for name, act in finish.items():
        if name in sys.modules:
            act(sys.modules[name])
    sys.meta_path.insert(0, _AfterImport(finish))


def _finish_image(module):
    save = module.Image.save

    @functools.wraps(save)
    def display_and_save(self, fp, *args, **kwargs):
        # A child process of the kernel has nobody to display to.
        if isinstance(fp, str) and os.getpid() == _KERNEL_PID:
            try:
                from IPython.display import display

                display(self)
            except Exception:
                pass
        return save(self, fp, *args, **kwargs)

    module.Image.save = display_and_save


def _finish_show(module):
    # First in line, before programs that would look for a screen.
    module.register(module.IPythonViewer(), 0)
