"""Checks config/grafana/refwatch.json without a Grafana: Grafana's types know every key, and links, colours and quantiles are complete."""

import json
import re

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

# Grafana has these keys, but its types do not.
UNTYPED = {"titleFormat", "step", "definition"}


def problems(board, statuses, histograms, fetch):
    """Yields what is wrong. `fetch` returns the response of the daemon to the path of a link."""
    plugins.register_default_plugins()
    typed = json.loads(JSONEncoder().encode(Dashboard.from_json(board)))
    yield from (f"Grafana's types have no {key}" for key in unknown(board, typed))
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    yield from (f"{panel['title']}: no description" for panel in panels if not panel.get("description"))
    if len({panel["id"] for panel in board["panels"]}) != len(board["panels"]):
        yield "two panels with one id"
    for name in histograms:
        found = {q for panel in panels for target in panel["targets"] for q in quantiles(target["expr"], name)}
        if found != {"0.5", "0.9", "0.99"}:
            yield f"{name}: quantiles {found}"
    yield from (f"{title}: no colour of {missing}" for title, missing in uncoloured(panels, statuses))
    for link in sorted(set(re.findall(r'"url": "([^"]*)"', json.dumps(board)))):
        path, _, anchor = link.removeprefix("${url}").partition("#")
        if not link.startswith("${url}/") or (f'id="{anchor}"' if anchor else "<main") not in fetch(path):
            yield f"the link {link} leads nowhere"


def unknown(value, typed, path=""):
    """The keys of `value` that are not in `typed`."""
    if isinstance(value, dict) and isinstance(typed, dict):
        for key in value.keys() - UNTYPED:
            if key in typed:
                yield from unknown(value[key], typed[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(value, list) and isinstance(typed, list):
        for nth, (one, other) in enumerate(zip(value, typed, strict=True)):
            yield from unknown(one, other, f"{path}[{nth}]")
    elif value != typed:
        yield f"{path}: {value} is read as {typed}"


def quantiles(query, histogram):
    return re.findall(r"histogram_quantile\(([\d.]+),", query) if f"{histogram}_bucket" in query else []


def uncoloured(panels, statuses):
    """The panels that show statuses by colour, and the statuses that have none. Numbers of the state timeline stand for statuses."""
    for title in ("Jobs by status", "Transitions", "Jobs", "Status of each job"):
        [config] = [panel["fieldConfig"] for panel in panels if panel["title"] == title]
        mappings = config["defaults"].get("mappings", [])
        coloured = set()
        for override in config["overrides"]:
            for changed in override["properties"]:
                mappings = mappings + changed["value"] if changed["id"] == "mappings" else mappings
                if changed["id"] == "color":
                    coloured.add(override["matcher"]["options"])
        for mapping in mappings:
            coloured |= {option["text"] for option in mapping["options"].values() if "color" in option}
        if statuses - coloured:
            yield title, statuses - coloured
