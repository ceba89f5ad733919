"""`vggbench weights fetch`: terms before the download, one line where it fails, what to do where nobody published."""

import json

from typer.testing import CliRunner
from weights_server import CONTENT, model, send, whole

from vggbench import weights, weights_fetch
from vggbench.cli import app


def command(*arguments):
    """The command's result, its standard error apart from its standard output."""
    return CliRunner().invoke(app, ["weights", *map(str, arguments)])


def test_the_command_names_licence_and_citation_before_it_downloads(server, monkeypatch):
    monkeypatch.setattr(weights, "published_model", lambda _: model(server))
    server.answer = lambda handler, _: send(handler, b"", status=404)
    result = command("fetch", "D", "--quiet")
    assert result.exit_code == 5
    told = result.stderr.splitlines()
    assert told[0].startswith("vggbench: VGG_ILSVRC_16_layers by Visual Geometry Group")
    assert told[1].startswith(
        "vggbench: Licence: the models' pages differ, CC BY-NC 4.0 or what http://www.robots.ox.ac.uk/~vgg/"
    )
    assert "arXiv 1409.1556" in told[2]
    assert "answers 404" in told[3]
    assert len(told) == 4
    server.answer = whole
    result = command("fetch", "D", "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["file"] == str(weights_fetch.place(model(server)))
    assert document["bytes"] == len(CONTENT)
    assert "--weights D=VGG_ILSVRC_16_layers" in command("fetch", "D").stdout


def test_the_command_offers_a_training_for_what_nobody_published(server):
    result = command("fetch", "C:384")
    assert result.exit_code == 5
    assert "vggbench train --network C --train-scale '384'" in result.stderr
    assert command("fetch", "nothing").exit_code == 2
    assert server.requests == []
