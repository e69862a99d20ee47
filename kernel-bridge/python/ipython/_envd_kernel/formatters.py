"""Representations for programs: tables as columns, figures as chart data, lists and dicts as JSON."""

import sys
import warnings

from IPython.core.formatters import BaseFormatter
from traitlets import ObjectName, Unicode

from _envd_kernel.jsonable import convert

_JSON = (dict, list, str, int, float, bool)


class DataFormatter(BaseFormatter):
    """Tables, and whatever has a `_repr_e2b_data_` method."""

    format_type = Unicode("e2b/data")
    print_method = ObjectName("_repr_e2b_data_")
    _return_type = _JSON


class ChartFormatter(BaseFormatter):
    """Figures, and whatever has a `_repr_e2b_chart_` method."""

    format_type = Unicode("e2b/chart")
    print_method = ObjectName("_repr_e2b_chart_")
    _return_type = _JSON

    def __call__(self, obj):
        # Not registered as a type: choosing a backend drops figures from every formatter there is.
        module = sys.modules.get("matplotlib.figure")
        if isinstance(obj, getattr(module, "Figure", ())):
            return _chart(obj)
        return super().__call__(obj)


def install(shell):
    """Adds the formatters to a shell; types are named, not imported."""
    display = shell.display_formatter
    data = DataFormatter(parent=display)
    # The second name is what pandas 3 calls it.
    data.for_type_by_name("pandas.core.frame", "DataFrame", _columns)
    data.for_type_by_name("pandas", "DataFrame", _columns)
    display.formatters["e2b/data"] = data
    display.formatters["e2b/chart"] = ChartFormatter(parent=display)
    json = display.formatters["application/json"]
    json.for_type(list, _json)
    json.for_type(dict, _json)


def _columns(frame):
    try:
        return {_label(label): convert(values) for label, values in frame.to_dict(orient="list").items()}
    except Exception:
        # The table's text is worth more than a traceback about its data.
        return None


def _label(label):
    return label if type(label) is str else str(label)


def _chart(figure):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from e2b_charts import chart_figure_to_dict

            return convert(chart_figure_to_dict(figure))
    except Exception:
        # Clients know an empty chart as "none could be read from this figure".
        return {}


def _json(value):
    if hasattr(type(value), "_repr_json_"):
        return value._repr_json_()
    try:
        import orjson

        packed = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
        return orjson.loads(packed), {"expanded": True}
    except Exception:
        # What is no JSON has none; its text is shown all the same.
        return None
