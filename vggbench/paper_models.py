"""Published weights as data: where they lie, their digests, terms, and what their sources say they score.

Read from paper_tables.json and, for terms and addresses, paper_models.json. No torch here, so that a page can be judged
by it.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from vggbench import paper

#: "VGG-16" and "VGG-19" in other people's names.
DEPTHS = {"16": "D", "19": "E"}


@dataclass(frozen=True)
class Published:
    """One published file. lineage: "authors" for the paper's own weights in any container, else who trained them.

    status: "authors" for the authors' own container, "other" else. digest: of the container, by ``digest_kind`` (sha1,
    sha256, md5); its first digits where no more is published. url: None where no address is known. preprocess: a name
    of vgg_reference's PREPROCESSING, what the file expects. megabytes: about, as its source says; None if it does not.
    """

    name: str
    network: str
    status: str
    lineage: str
    publisher: str
    file: str
    url: str | None
    digest_kind: str
    digest: str
    preprocess: str
    licence: str
    citation: str
    training: str
    batch_norm: bool = False
    train_scale: str | None = None
    megabytes: float | None = None

    def holds(self, digests: Mapping[str, str]) -> bool:
        """Whether these digests of a container (sha1, sha256, md5 -> hex) are this file's."""
        return digests.get(self.digest_kind, "").startswith(self.digest)


@functools.cache
def published() -> tuple[Published, ...]:
    """All of them, the authors' first."""
    return (*_authors(), *_torchvision(), *_ports())


def identify(digests: Mapping[str, str]) -> Published | None:
    """The published file with these digests (sha1, sha256, md5 -> hex), or None."""
    return next((model for model in published() if model.holds(digests)), None)


def by_name(name: str) -> Published | None:
    """The published file of this name or file name, or None."""
    return next((model for model in published() if name in (model.name, model.file)), None)


def without_weights() -> tuple[paper.Entry, ...]:
    """Every network and training scale of Tables 3-6 that nobody published weights of."""
    entries = [entry for claim in paper.claims() for entry in claim.entries if not entry.has_public_weights]
    return tuple({(entry.network, entry.train_scale): entry for entry in entries}.values())


@functools.cache
def _terms() -> dict[str, Any]:
    text = resources.files("vggbench").joinpath("paper_models.json").read_text(encoding="utf-8")
    terms: dict[str, Any] = json.loads(text)
    return terms


def _common(key: str) -> dict[str, Any]:
    terms, source = _terms()[key], paper.source()
    cited = f"{source['authors']}, {source['title']}, {source['venue']}, arXiv {source['arxiv']}"
    common = {name: terms[name] for name in ("publisher", "preprocess", "licence") if name in terms}
    return {**common, "citation": terms["citation"].format(paper=cited)}


def _authors() -> Iterator[Published]:
    for model in paper.public_models()["authors_caffe"]:
        if "caffemodel_url" not in model:
            continue
        yield Published(
            name=model["name"],
            network=model["config"],
            status="authors",
            lineage="authors",
            file=model["caffemodel_url"].rsplit("/", 1)[1],
            url=model["caffemodel_url"],
            digest_kind="sha1",
            digest=model["caffemodel_sha1"],
            training=model["training"],
            train_scale=paper.PUBLIC_TRAIN_SCALE,
            megabytes=float(model["size"].split()[0]),
            **_common("authors"),
        )


def _torchvision() -> Iterator[Published]:
    found = paper.public_models()["torchvision"]
    for model in found["weights"]:
        yield Published(
            name=model["name"],
            network=model["config"],
            status="other",
            lineage="torchvision",
            file=model["file"],
            url=model["url"],
            digest_kind="sha256",
            digest=model["sha256_prefix"],
            training=f"torchvision's own training: {found['recipe']}",
            batch_norm=model["batch_norm"],
            megabytes=model["file_size_mb"],
            **_common("torchvision"),
        )


def _ports() -> Iterator[Published]:
    """The authors' weights in other containers; files without the classifier are left out, they cannot classify."""
    for port in paper.public_models()["ports_of_caffe_weights"]:
        key = next(name for name in _terms() if port["name"].startswith(name))
        for name, file, url, kind, digest in _files(port, _terms()[key].get("address")):
            if "notop" in file:
                continue
            yield Published(
                name=name,
                network=DEPTHS[re.findall("16|19", name)[-1]],
                status="other",
                lineage="authors",
                file=file,
                url=url,
                digest_kind=kind,
                digest=digest,
                training=f"the authors' weights, ported: {port.get('note', 'other container, same weights')}",
                train_scale=paper.PUBLIC_TRAIN_SCALE,
                **_common(key),
            )


def _files(port: dict[str, Any], address: str | None) -> Iterator[tuple[str, str, str | None, str, str]]:
    """Name, file, address, kind of digest and digest of each file of a port."""
    files = port["files"]
    if isinstance(files, list):  # torch's file names end in the first eight digits of their SHA-256
        for url in files:
            file = url.rsplit("/", 1)[1]
            yield f"pytorch-vgg/{file.split('-')[0]}", file, url, "sha256", file.split("-")[1].split(".")[0]
        return
    for label, md5 in files.items():
        if label.endswith(".h5"):
            model = label.split("_")[0]
            url = address.format(model=model, file=label) if address else None
            yield f"keras/{model}", label, url, "md5", md5
        else:
            release, depth = label.rsplit(" ", 1)
            yield f"matconvnet/{release.split()[-1]}/{depth}", f"imagenet-vgg-verydeep-{depth}.mat", None, "md5", md5


def torchvision_filter() -> str:
    """How torchvision's figures were resized."""
    return str(_terms()["torchvision"]["resize_filter"])
