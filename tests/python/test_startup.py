"""The start-up modules of Python kernels, in a real ipykernel.

Run with the Python of an environment that has ipykernel, orjson, matplotlib, e2b-charts, pandas and pillow:
    <environment>/bin/python -m pytest tests/python
"""

import base64
import json
import os
import pathlib
import queue
import shutil
import sys

import pytest
from jupyter_client import KernelManager

SOURCE = pathlib.Path(__file__).resolve().parents[2] / "kernel-bridge" / "python"
TIMEOUT_SECONDS = 120


class Kernel:
    """One kernel started as the agent starts it, and what its cells answer."""

    def __init__(self, home):
        runtime = home / "runtime"
        shutil.copytree(SOURCE, runtime)
        env = {name: value for name, value in os.environ.items() if not name.startswith(("MPL", "IPYTHON"))}
        env["IPYTHONDIR"] = str(runtime / "ipython")
        env["MATPLOTLIBRC"] = str(runtime / "matplotlibrc")
        env["HOME"] = str(home)
        env["INHERITED"] = "from the agent"
        self.manager = KernelManager()
        self.manager.kernel_cmd = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        self.manager.start_kernel(env=env, cwd=str(home))
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=TIMEOUT_SECONDS)

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def run(self, code, silent=False):
        """All messages of a cell as (type, content)."""
        asked = self.client.execute(code, silent=silent, stop_on_error=False)
        messages = []
        while True:
            try:
                message = self.client.get_iopub_msg(timeout=TIMEOUT_SECONDS)
            except queue.Empty:
                pytest.fail(f"no answer to {code!r} after {messages}")
            if message["parent_header"].get("msg_id") != asked:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                return messages
            messages.append((kind, content))

    def texts(self, code, stream="stdout"):
        return "".join(content["text"] for kind, content in self.run(code) if kind == "stream" and content["name"] == stream)

    def bundles(self, code):
        """MIME bundles of a cell that must neither fail nor complain."""
        messages = self.run(code)
        for kind, content in messages:
            assert kind != "error", "\n".join(content["traceback"])
            assert not (kind == "stream" and content["name"] == "stderr"), content["text"]
        return [content["data"] for kind, content in messages if kind in ("execute_result", "display_data")]

    def enter(self, **variables):
        payload = base64.b64encode(json.dumps(variables).encode()).decode()
        assert self.hidden(f'__import__("_envd_kernel").enter("{payload}")') == []

    def leave(self):
        assert self.hidden('__import__("_envd_kernel").leave()') == []

    def hidden(self, code):
        return [message for message in self.run(code, silent=True) if message[0] != "status"]

    def variable(self, name):
        return json.loads(self.texts(f"import os, json; print(json.dumps(os.environ.get({name!r})))"))


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    kernel = Kernel(tmp_path_factory.mktemp("kernel"))
    yield kernel
    kernel.close()


@pytest.fixture
def fresh(tmp_path):
    kernel = Kernel(tmp_path)
    yield kernel
    kernel.close()


def test_a_fresh_kernel_is_clean_and_light(fresh):
    fresh.enter(A="1")
    fresh.leave()
    ours = "[n for n in dir() if 'envd' in n.lower() or n not in ('In', 'Out', 'get_ipython', 'exit', 'quit', 'open') and not n.startswith('_')]"
    assert fresh.bundles(ours)[0]["text/plain"] == "[]"
    assert fresh.texts("%who") == "Interactive namespace is empty.\n"
    heavy = "import sys; [n for n in ('pandas', 'matplotlib', 'PIL', 'numpy', 'e2b_charts', 'pydantic') if n in sys.modules]"
    assert fresh.bundles(heavy)[0]["text/plain"] == "[]"
    assert "_envd_kernel" not in fresh.texts("import sys; print(sys.path)")
    history = list(pathlib.Path(os.path.dirname(fresh.texts("print(get_ipython().ipython_dir)").strip())).rglob("*.sqlite"))
    assert history == []


def test_the_first_cell_is_number_one_although_variables_were_set(fresh):
    fresh.enter(A="1")
    counts = [content["execution_count"] for kind, content in fresh.run("1") if kind == "execute_input"]
    assert counts == [1]
    fresh.leave()
    assert "1: 1" in fresh.texts("%history -n")


def test_variables_last_for_one_cell_and_come_back_as_they_were(kernel):
    nasty = "a'b\"c\\n\n$HOME é😀\t"
    kernel.enter(NEW=nasty, INHERITED="overridden", PATH="/nowhere")
    assert kernel.variable("NEW") == nasty
    assert kernel.variable("INHERITED") == "overridden"
    kernel.leave()
    assert kernel.variable("NEW") is None
    assert kernel.variable("INHERITED") == "from the agent"
    assert kernel.variable("PATH") == os.environ["PATH"]


def test_children_see_the_variables(kernel):
    kernel.enter(CHILD="seen")
    assert kernel.texts("!echo $CHILD").strip() == "seen"
    kernel.leave()


def test_entering_again_first_leaves(kernel):
    kernel.enter(INHERITED="one", ONLY_ONE="1")
    kernel.enter(INHERITED="two")
    assert (kernel.variable("INHERITED"), kernel.variable("ONLY_ONE")) == ("two", None)
    kernel.leave()
    kernel.leave()
    assert kernel.variable("INHERITED") == "from the agent"


def test_variables_survive_what_cells_do_to_them(kernel):
    kernel.enter(GONE="1", ALSO="2")
    kernel.run("import os; del os.environ['GONE']; os.environ['MINE'] = 'kept'")
    kernel.leave()
    assert [kernel.variable(name) for name in ("GONE", "ALSO", "MINE")] == [None, None, "kept"]
    kernel.enter(**{"BAD=NAME": "x", "": "y", "NUL": "a\0b", "GOOD": "z"})
    assert kernel.variable("GOOD") == "z"
    kernel.leave()
    assert kernel.variable("GOOD") is None


def test_names_of_the_user_do_not_reach_our_code(kernel):
    kernel.run("list = dict = str = convert = os = type = print_ = None")
    kernel.enter(A="1")
    kernel.leave()
    assert kernel.bundles("[1, 2]")[0]["application/json"] == [1, 2]
    kernel.run("del list, dict, str, convert, os, type, print_")


def test_lists_and_dicts_have_json(kernel):
    assert kernel.bundles("[1, 2, {'a': float('nan')}]") == [
        {"text/plain": "[1, 2, {'a': nan}]", "application/json": [1, 2, {"a": None}]}
    ]
    assert kernel.bundles("{1: (2, 'é')}")[0]["application/json"] == {"1": [2, "é"]}
    for other in ("(1, 2)", "{1}", "'abc'", "42", "[object]", "[2**70]", "[b'x']"):
        assert "application/json" not in kernel.bundles(other)[0], other
    assert len(kernel.bundles("list(range(5000))")[0]["text/plain"].split(",")) == 5000


def test_own_representations_are_used(kernel):
    kernel.run(
        "class Own(dict):\n"
        "    def _repr_e2b_data_(self): return {'d': [1]}\n"
        "    def _repr_e2b_chart_(self): return {'type': 'unknown'}\n"
        "    def _repr_json_(self): return {'j': 1}\n"
    )
    bundle = kernel.bundles("Own()")[0]
    assert (bundle["e2b/data"], bundle["e2b/chart"], bundle["application/json"]) == (
        {"d": [1]},
        {"type": "unknown"},
        {"j": 1},
    )


def test_data_frames_are_columns_of_plain_values(kernel):
    kernel.run("import pandas as pd, numpy as np, datetime, decimal")
    bundle = kernel.bundles("pd.DataFrame({'a': [1, 2, 3], 1: [0.5, float('nan'), float('inf')], ('t', 2): ['x', None, 'é']})")[0]
    assert set(bundle) == {"text/plain", "text/html", "e2b/data"}
    assert bundle["e2b/data"]["a"] == [1, 2, 3]
    assert bundle["e2b/data"]["1"] == [0.5, None, None]
    assert bundle["e2b/data"]["('t', 2)"][0::2] == ["x", "é"]
    odd = kernel.bundles(
        "pd.DataFrame({'when': [pd.Timestamp('2024-01-02T03:04:05'), pd.NaT], 'zone': [pd.Timestamp('2024-01-02', tz='UTC')] * 2,"
        " 'delta': [pd.Timedelta(days=1, hours=2), pd.NaT], 'period': pd.period_range('2024-01', periods=2, freq='M'),"
        " 'complex': [1 + 2j, 0j], 'int': pd.array([1, None], dtype='Int64'), 'big': [2**70, 1], 'bytes': [b'x', b''],"
        " 'nested': [{'k': [np.int8(1), np.array([1.5, np.nan])]}, (1, {2})], 'date': [datetime.date(2024, 1, 2)] * 2,"
        " 'category': pd.Categorical(['u', 'v']), 'interval': pd.interval_range(0, 2), 'decimal': [decimal.Decimal('1.10')] * 2,"
        " 'object': [object, 1]})"
    )[0]["e2b/data"]
    assert odd["when"] == ["2024-01-02T03:04:05", "NaT"]
    assert odd["zone"][0] == "2024-01-02T00:00:00+00:00"
    assert odd["delta"] == ["1 days 02:00:00", "NaT"]
    assert odd["period"] == ["2024-01", "2024-02"]
    assert odd["complex"] == ["(1+2j)", "0j"]
    assert odd["int"] == [1, None]
    assert odd["big"] == [float(2**70), 1]
    assert odd["nested"] == [{"k": [1, [1.5, None]]}, [1, [2]]]
    assert odd["date"] == ["2024-01-02"] * 2
    assert odd["category"] == ["u", "v"]
    assert odd["decimal"] == ["1.10"] * 2
    assert "e2b/data" not in kernel.bundles("pd.Series([1, 2])")[0]
    assert kernel.bundles("pd.DataFrame()")[0]["e2b/data"] == {}


def test_figures_have_a_picture_and_a_chart(kernel):
    kernel.run("import matplotlib.pyplot as plt")
    bundles = kernel.bundles("plt.plot([0, 1], [1, 2]); plt.title('T'); plt.xlabel('time (s)')\nplt.show()\n5")
    assert len(bundles) == 2
    assert set(bundles[0]) == {"text/plain", "image/png", "e2b/chart"}
    assert bundles[0]["text/plain"] == "<Figure size 640x480 with 1 Axes>"
    chart = bundles[0]["e2b/chart"]
    assert (chart["type"], chart["title"], chart["x_unit"]) == ("line", "T", "s")
    assert chart["elements"][0]["points"] == [[0.0, 1.0], [1.0, 2.0]]
    assert bundles[1]["text/plain"] == "5"
    blank = kernel.bundles("from matplotlib.figure import Figure\nFigure()")[0]
    assert blank["e2b/chart"] == {}


def test_a_figure_left_open_is_shown_at_the_end_of_its_cell(kernel):
    bundles = kernel.bundles("import matplotlib.pyplot as plt\n_ = plt.bar(['a', 'b'], [100, 200])")
    assert bundles[0]["e2b/chart"]["type"] == "bar"
    assert [bar["value"] for bar in bundles[0]["e2b/chart"]["elements"]] == [100, 200]


def test_images_are_shown_by_value_by_show_and_by_save(fresh):
    fresh.run("from PIL import Image\nimage = Image.new('RGB', (4, 4))")
    assert "image/png" in fresh.bundles("image")[0]
    assert "image/png" in fresh.bundles("image.show()")[0]
    saved = fresh.bundles("image.save('test.png')")
    assert len(saved) == 1 and "image/png" in saved[0]
    assert fresh.bundles("import os; os.path.getsize('test.png') > 0")[0]["text/plain"] == "True"
    assert fresh.bundles("import io, pathlib\nimage.save(pathlib.Path('p.png')); image.save(io.BytesIO(), 'PNG')") == []
    assert fresh.bundles("import inspect; 'fp' in inspect.signature(Image.Image.save).parameters")[0]["text/plain"] == "True"


def test_errors_are_plain_text(kernel):
    error = next(content for kind, content in kernel.run("1/0") if kind == "error")
    assert error["ename"] == "ZeroDivisionError"
    assert "\x1b" not in "".join(error["traceback"])
