# Runs inside the user's namespace, so it leaves no name behind; the real code lives in a module of its own, where
# no name that the user redefines can reach it.
def _envd_start(shell):
    import importlib.util
    import os
    import sys

    name = "_envd_kernel"
    home = os.path.join(shell.ipython_dir, name)
    spec = importlib.util.spec_from_file_location(
        name, os.path.join(home, "__init__.py"), submodule_search_locations=[home]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    module.start(shell)


_envd_start(get_ipython())  # noqa: F821 - provided by IPython
del _envd_start
