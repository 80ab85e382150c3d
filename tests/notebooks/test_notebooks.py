"""Notebooks run from a clean kernel, hold no outputs and no logic of their own, and say nothing that does not work."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbclient import NotebookClient

from evaluation.simulated_runs import PARTITIONS, START_MS
from simulator.encode import concat
from simulator.stream import Plan, record
from tests.flow_process import FlowProcess, settings_for
from tests.kafka_log import NewRecord, produce

if TYPE_CHECKING:
    from tests.conftest import KafkaCluster, Topics

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
OWN_FLOW = ROOT / "notebooks" / "04_bring_your_own_flow.ipynb"
LONGEST_S = 60
MOST_LINES_OF_A_FLOW = 20
LOGIC = (ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.If, ast.Lambda, ast.Try, ast.With)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_of(path: Path) -> list[str]:
    return [cell.source for cell in read(path).cells if cell.cell_type == "code"]


def test_the_four_notebooks_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "01_explore_a_flow",
        "02_tune_a_detector",
        "03_incident_review",
        "04_bring_your_own_flow",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_from_a_clean_kernel_within_a_minute(path: Path) -> None:
    notebook = read(path)
    client = NotebookClient(notebook, timeout=LONGEST_S, resources={"metadata": {"path": str(ROOT)}})
    client.execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pages = [output["data"].get("text/html", "") for output in shown if "data" in output]
    assert any("vegaEmbed" in page for page in pages), "a plot is what a person looks at first"
    assert [output for output in shown if output.get("name") == "stderr"] == []
    assert "seed " in "".join(output.get("text", "") for output in shown)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path: Path) -> None:
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert [cell["outputs"] for cell in cells] == [[]] * len(cells)
    assert [cell["execution_count"] for cell in cells] == [None] * len(cells)


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path != OWN_FLOW], ids=lambda path: path.stem)
def test_notebook_has_no_logic_of_its_own(path: Path) -> None:
    found = [ast.unparse(node)[:60] for text in code_of(path) for node in ast.walk(ast.parse(text))
             if isinstance(node, LOGIC)]  # fmt: skip
    assert found == []


def test_flow_of_ones_own_takes_twenty_lines() -> None:
    functions = [
        node for text in code_of(OWN_FLOW) for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)
    ]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert set(lengths) == {"breaches", "flow"}
    assert sum(lengths.values()) <= MOST_LINES_OF_A_FLOW


@pytest.mark.slow
def test_flow_of_ones_own_runs_on_kafka_as_the_notebook_says(
    kafka: KafkaCluster, topics: Topics, tmp_path: Path
) -> None:
    imports, flow = (text for text in code_of(OWN_FLOW) if "import numpy" in text or "def flow" in text)
    (on_kafka,) = re.findall(r"```python\n(.*?)```", "\n".join(cell.source for cell in read(OWN_FLOW).cells), re.DOTALL)
    (tmp_path / "objective.py").write_text(f"{imports}\n{flow}\n{on_kafka}")
    plan = Plan(seed=7, start_ms=START_MS, duration_ms=540_000, rate_per_s=60.0, scenario="demo")
    log = concat([chunk.records for chunk in record(plan, PARTITIONS)])
    records = zip(log.values, log.keys, log.partitions, log.arrival_ms, strict=True)
    produce(kafka.client_options, topics.events, [NewRecord(v, k, p, (), at) for v, k, p, at in records])
    env = settings_for(kafka, topics) | {"TAILMARK_KAFKA__STOP_AT_END": "true", "PYTHONPATH": str(tmp_path)}
    codes, said = FlowProcess(env, tmp_path / "state", flow="objective:graph").run()
    assert codes == [0], said
    assert "'search', '/query'" in said
