"""What a network of a record is called by its precision and the layers that were asked to stay in floating point."""

from __future__ import annotations

from vggbench.results import NetworkRun, Record


def float_layers_of(run: NetworkRun) -> str:
    """Layers that were asked to stay in floating point, as --float-layers takes them: "block1.conv1,fc6"."""
    return ",".join(run.calibration.get("float_layers") or ())


def precision_name(run: NetworkRun) -> str:
    """ "int8", or "int8 (fc6 in float)": another network, which stands in a column of its own."""
    kept = float_layers_of(run)
    return f"{run.precision} ({kept} in float)" if kept else run.precision


def float_layers_in(record: Record) -> str:
    """float_layers_of a record's network; of several networks with whose they are: "E/256 fc6"."""
    if len(record.networks) == 1:
        return float_layers_of(record.networks[0])
    kept = ((f"{run.network}/{run.weights.get('train_scale') or '?'}", float_layers_of(run)) for run in record.networks)
    return " + ".join(f"{name} {layers}" for name, layers in kept if layers)


def precision_names(record: Record) -> str:
    """precision_name of all networks of a record, once where they agree."""
    names = [precision_name(run) for run in record.networks]
    return names[0] if len(set(names)) == 1 else " + ".join(names)
