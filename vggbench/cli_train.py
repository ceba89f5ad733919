"""`vggbench train`: the paper's recipe on a folder of images or on the sample set (section 3.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vggbench.cli_common import interrupted, note, print_json, say
from vggbench.cli_workers import workers as processes

#: What the sample networks are where the paper's are not: tried sizes that learn on two cores.
_SAMPLE = {"width": 0.125, "hidden_width": 0.0625, "crop_size": 64, "batch": 32, "input_scale": 1 / 64}


def train(
    network: Annotated[str, typer.Option(help="A, A-LRN, B, C, D, E or shallow-B.")],
    out: Annotated[Path, typer.Option(help="Folder for weights.safetensors, curve.jsonl and checkpoint.pt.")],
    data: Annotated[str, typer.Option(help="A folder of training images, or 'sample'.")] = "sample",
    tuning_data: Annotated[
        str | None, typer.Option(help="A folder that steers the learning rate; else a tenth of --data is held out.")
    ] = None,
    train_scale: Annotated[str, typer.Option(help="S: 256, 384 or '[256;512]' (at 224-pixel crops).")] = "256",
    start: Annotated[Path | None, typer.Option(help="Weights (.safetensors) to start from.")] = None,
    transfer: Annotated[
        str, typer.Option(help="What is taken from --start: all, paper (4 convolutions and FC), grow.")
    ] = "all",
    initialization: Annotated[str, typer.Option(help="gaussian (the paper's), he, or scaled on data.")] = "gaussian",
    init_std: Annotated[float, typer.Option(help="Standard deviation of gaussian.")] = 1e-2,
    epochs: Annotated[int, typer.Option(help="At most so many; the paper's 74.")] = 74,
    batch: Annotated[int | None, typer.Option(help="Images an iteration; 256, on the sample set 32.")] = None,
    learning_rate: Annotated[float, typer.Option(help="At the start.")] = 1e-2,
    momentum: Annotated[float, typer.Option(help="Of SGD.")] = 0.9,
    weight_decay: Annotated[float, typer.Option(help="L2 penalty's multiplier.")] = 5e-4,
    dropout: Annotated[float, typer.Option(help="On the first two FC layers.")] = 0.5,
    dropout_from: Annotated[int, typer.Option(help="Epoch from which dropout acts.")] = 0,
    drop_after: Annotated[
        str, typer.Option(help="Epochs after which the learning rate drops tenfold, as 5,7; else on a plateau.")
    ] = "",
    patience: Annotated[int, typer.Option(help="Epochs without a better tuning error that make a plateau.")] = 3,
    rgb_shift: Annotated[float, typer.Option(help="Standard deviation of the colour shift's factors.")] = 0.1,
    flip: Annotated[bool, typer.Option(help="Mirror images at random.")] = True,
    width: Annotated[float | None, typer.Option(help="Multiplies the channels; 1, on the sample set 1/8.")] = None,
    crop_size: Annotated[int | None, typer.Option(help="Pixels; 224, on the sample set 64.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, or bf16 autocast.")] = "fp32",
    freeze_convolutions: Annotated[bool, typer.Option(help="Train the FC layers only.")] = False,
    resize_filter: Annotated[str, typer.Option(help="Antialiased, as of evaluate.")] = "bicubic",
    seed: Annotated[int, typer.Option(help="Decides weights, order, crops and dropout.")] = 0,
    images: Annotated[int | None, typer.Option(min=1, help="Train on the first so many only.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    parts: Annotated[
        int | None,
        typer.Option(help="Compute a batch in so many parts, which workers share; else one for each worker."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of torch, for a part; else its share of the cores.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Threads that decode and cut; 0: none beside the training.")] = 0,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Train one network by the paper's recipe; the same command goes on where an interrupted one stopped."""
    from vggbench.protocols import Choices, check_choices
    from vggbench.train.recipe import Recipe, drops_from

    check_choices(Choices(resize_filter=resize_filter))
    sizes: dict[str, Any] = dict(_SAMPLE) if data == "sample" else {}
    given = {"width": width, "crop_size": crop_size, "batch": batch}
    sizes |= {key: value for key, value in given.items() if value is not None}
    recipe = Recipe(
        network,
        train_scale,
        epochs=epochs,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        dropout=dropout,
        dropout_from=dropout_from,
        drop_after=drops_from(drop_after),
        patience=patience,
        initialization=initialization,
        init_std=init_std,
        transfer=transfer,
        rgb_shift=rgb_shift,
        flip=flip,
        resize_filter=resize_filter,
        precision=precision,
        seed=seed,
        freeze_convolutions=freeze_convolutions,
        **sizes,
    )
    from vggbench import runs_train

    try:
        with processes() as group:
            trained = runs_train.train(
                recipe, data, tuning_data, out, start, images, device, threads, workers, group, parts
            )
    except KeyboardInterrupt:  # a step that was broken off leaves no state to save
        interrupted("The same command goes on from the last checkpoint, if there is one.")
    if trained is None:
        return
    last = trained.history[-1]
    if json_output:
        found = {"weights": str(trained.path), "digest": trained.digest, "parts": trained.parts}
        print_json({**found, "history": trained.history})
        return
    say(
        f"{trained.path}: {network} at S = {train_scale}, {len(trained.history)} epochs, training loss "
        f"{last['training_loss']:.3f}, tuning top-1 error {last['tuning_top1_error_percent']:.1f} % (dense, one scale)."
    )
    note(f"The curve is in {out / 'curve.jsonl'} and, to look at, in {out / 'curve.html'}.")
