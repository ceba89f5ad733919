"""The commands that look after weights: list, fetch, verify, convert, info."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vggbench import cli_options as options
from vggbench import progress
from vggbench.cli_common import note, print_json, say

if TYPE_CHECKING:
    from vggbench.paper_models import Published

_PREPROCESS = "What the file expects, where it is of no known publisher: paper-rgb, paper-bgr or torchvision."
_FILE = "A weights file: .safetensors, .caffemodel, .pth, .npz or .h5."

Preprocess = Annotated[str | None, typer.Option(help=_PREPROCESS)]


def weights_list(json: options.Json = False) -> None:
    """The shipped sample family, the published models, and the rows of the paper that nobody published weights of."""
    from vggbench.weights import list_weights

    found = list_weights()
    if json:
        print_json(found)
        return
    say(f"{'name':28} {'network':24} {'S':10} {'from':8}")
    for row in found:
        here = "here" if row["available"] else row.get("note", "")
        say(f"{row['name']:28} {row['network']:24} {row.get('train_scale') or '':10} {row['status']:8} {here}")
    say("")
    terms = dict.fromkeys((row["status"], row["publisher"], row["licence"]) for row in found if row.get("publisher"))
    for status, publisher, licence in terms:
        say(f"{status}: {publisher}; licence: {licence}")


def weights_fetch(
    name: Annotated[str, typer.Argument(help="A name of `weights list`, or a network, as D or D:256.")],
    out: Annotated[Path | None, typer.Option(help="Folder or file (default: the cache).", metavar="PATH")] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Download a published model and check its digest; an interrupted download goes on where it stopped.

    Proxies are taken from the environment (HTTPS_PROXY, HTTP_PROXY, NO_PROXY).
    """
    from vggbench.weights import published_model
    from vggbench.weights_fetch import fetch

    model = published_model(name)
    _show_terms(model)
    with progress.shown(quiet or json) as shown:
        path = fetch(model, out, shown)
    if json:
        print_json({"name": model.name, "file": str(path), "bytes": path.stat().st_size, **_terms(model)})
        return
    spec = model.name if out is None else path
    say(f"{path}: {path.stat().st_size:,} bytes, {model.digest_kind} as published")
    say(f"Use it: vggbench reproduce --data IMAGENET_DIR --weights {model.network}={spec} --out DIR")


def weights_verify(
    file: Annotated[Path, typer.Argument(help=_FILE, metavar="FILE")],
    name: Annotated[str | None, typer.Option("--is", help="It must be this published model.")] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Which published model a file is, by its digest; of a converted file, what it was converted from."""
    from vggbench.weights import published_model, verify

    wanted = published_model(name) if name else None
    with progress.shown(quiet or json) as shown:
        found = verify(file, wanted, shown)
    if json:
        print_json(found)
        return
    for key, value in found.items():
        say(f"{key:15} {value if value is not None else 'none that is known'}")


def weights_convert(
    file: Annotated[Path, typer.Argument(help=_FILE, metavar="FILE")],
    out: Annotated[Path, typer.Option(help="The safetensors file to write.", metavar="FILE.safetensors")],
    network: Annotated[str | None, typer.Option(help="Where the file fits several, as A and A-LRN.")] = None,
    preprocess: Preprocess = None,
    train_scale: Annotated[str | None, typer.Option(help="S of a file of no known publisher.")] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Any accepted weights file -> safetensors, with its source and digests inside."""
    import dataclasses

    from vggbench.weights_convert import convert

    with progress.shown(quiet or json) as shown:
        found = convert(file, out, network, preprocess, train_scale, shown)
    if json:
        print_json(dataclasses.asdict(found))
        return
    known = f"{found.name}, " if found.status == "authors" or found.recipe else "of no known publisher, "
    say(f"{out}: {known}network {found.network}, {found.num_classes:,} classes, status {found.status}")
    if found.source is not None:
        say(f"{found.source.done}; sha1 {found.source.sha1}")


def weights_info(
    file: Annotated[Path, typer.Argument(help=_FILE, metavar="FILE")],
    network: Annotated[str | None, typer.Option(help="What a foreign file holds.")] = None,
    preprocess: Preprocess = None,
    json: options.Json = False,
) -> None:
    """What a weights file holds and expects of its input."""
    from vggbench.runs_inputs import describe_file
    from vggbench.weights_convert import converted

    fields = describe_file(*_readable(converted(file, network, preprocess), file, network, preprocess))
    if json:
        print_json(fields)
        return
    for key, value in fields.items():
        inner = value.items() if isinstance(value, dict) else ((None, value),)
        for name, each in inner:
            text = ", ".join(map(str, each)) if isinstance(each, list | tuple) else each
            say(f"{key if name is None else f'{key} {name}':17} {'none' if text is None else text}")


def _readable(found: Path, file: Path, network: str | None, preprocess: str | None) -> tuple[Path, Any, Any]:
    """A converted file says all of itself; of others the options do."""
    return (found, network, preprocess) if found == file else (found, None, None)


def _show_terms(model: Published) -> None:
    """Before anything is downloaded, and on standard error, so that --json stays one document."""
    size = f", about {model.megabytes:,.0f} MB" if model.megabytes else ""
    note(f"{model.name} by {model.publisher}: {model.url or 'no address is known'}{size}")
    note(f"Licence: {model.licence}")
    note(f"Please cite {model.citation}")


def _terms(model: Published) -> dict[str, Any]:
    return {"licence": model.licence, "citation": model.citation, model.digest_kind: model.digest}
