"""A comparison as JUnit XML, as Jenkins, GitLab and GitHub's actions read it: a test case a row."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from vggbench.gate import Comparison, Row
from vggbench.gate_rows import INCONCLUSIVE, NOT_COMPARABLE, REGRESSED
from vggbench.report.gate import shown_row

#: What XML 1.0 cannot hold, not even as a reference.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(found: Comparison) -> bytes:
    """One suite: a failure for a regressed row, a skip for one that was not decided or cannot be compared.

    Complete enough for the strictest schema in use, that of Ant's JUnit task, and so for the others.
    """
    failures = sum(row.verdict == REGRESSED for row in found.rows)
    skipped = sum(row.verdict in (INCONCLUSIVE, NOT_COMPARABLE) for row in found.rows)
    suites = ET.Element("testsuites")
    suite = ET.SubElement(
        suites,
        "testsuite",
        {
            "name": "vggbench gate",
            "package": "vggbench",
            "id": "0",
            "hostname": "localhost",  # a host's name is nobody's business
            "timestamp": _timestamp(found.started),
            "tests": str(len(found.rows)),
            "failures": str(failures),
            "errors": "0",
            "skipped": str(skipped),
            "time": "0",
        },
    )
    properties = ET.SubElement(suite, "properties")
    facts = {"verdict": found.verdict, "base": found.base, "head": found.head, "across": ", ".join(found.across)}
    for name, value in facts.items():
        ET.SubElement(properties, "property", {"name": name, "value": _legal(value)})
    for row in found.rows:
        _case(suite, row)
    ET.SubElement(suite, "system-out").text = _legal("\n".join([f"{found.verdict}: {found.reason}", *found.labels]))
    ET.SubElement(suite, "system-err").text = _legal("\n".join(found.notes))
    ET.indent(suites)
    return bytes(ET.tostring(suites, encoding="utf-8", xml_declaration=True)) + b"\n"


def _case(suite: ET.Element, row: Row) -> None:
    classname = f"vggbench.{row.metric.replace(' ', '_')}"
    case = ET.SubElement(suite, "testcase", {"name": _legal(row.name), "classname": classname, "time": "0"})
    reason = _legal(f"{row.verdict}: {row.reason}")
    if row.verdict == REGRESSED:
        told = shown_row(0, row)
        failure = ET.SubElement(case, "failure", {"message": reason, "type": REGRESSED})
        failure.text = _legal(
            "\n".join(
                [
                    reason,
                    f"BASE {told['base']}, HEAD {told['head']}, change {told['change']} ({told['interval']})",
                    *row.across,
                ]
            )
        )
    elif row.verdict in (INCONCLUSIVE, NOT_COMPARABLE):
        ET.SubElement(case, "skipped", {"message": reason})


def _timestamp(started: str) -> str:
    """As the schemas want it: to the second, without a zone."""
    moment = re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", started)
    return moment[0] if moment else "1970-01-01T00:00:00"


def _legal(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
