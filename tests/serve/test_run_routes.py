"""The page reads runs and their logs, and writes preferences that `gnano dpo` reads."""

import json

import pytest
from tests.serve.server_process import ServerProcess

from gnano.data.sft.conversations import parse_preference
from gnano.data.sft.record_loading import read_record_files


def test_runs_and_their_logs_are_read_from_a_position_on(server, runs):
    found = {run["name"]: run for run in server.http.get("/api/runs").json()["runs"]}
    assert found.keys() == {"small", "small-sft"}
    small = found["small"]
    assert (small["kind"], small["step"], small["total_steps"]) == ("pretrain", 4, 4)
    assert not small["is_running"] and small["checkpoints"] == [2, 4]
    assert found["small-sft"]["kind"] == "sft"
    answer = server.http.get("/api/runs/small/metrics").json()
    lines = (runs / "small/metrics.jsonl").read_text().splitlines()
    assert answer["lines"] == [json.loads(line) for line in lines]
    again = server.http.get(f"/api/runs/small/metrics?since={answer['next']}").json()
    assert again == {"lines": [], "next": answer["next"]}
    middle = len(lines[0].encode()) + 1
    rest = server.http.get(f"/api/runs/small/metrics?since={middle}").json()
    assert rest["lines"] == answer["lines"][1:]
    events = server.http.get("/api/runs/small/events").json()["lines"]
    assert events[0]["event"] == "started" and events[-1]["event"] == "finished"
    for query in ("since=-1", "since=a", "since=" + "9" * 30):
        response = server.http.get(f"/api/runs/small/metrics?{query}")
        assert response.status_code == 400 and response.json()["error"]["param"] == "since"
    # the file became shorter
    beyond = server.http.get(f"/api/runs/small/metrics?since={10**14}").json()
    assert beyond == {"lines": [], "next": answer["next"]}


def test_preferences_need_a_file(server):
    record = {"prompt": "a", "chosen": "b", "rejected": "c"}
    assert server.post("/api/preferences", **record).status_code == 403


@pytest.mark.slow
def test_preferences_are_a_file_for_dpo(runs, tmp_path):
    path = tmp_path / "preferences.jsonl"
    with ServerProcess(runs / "small-sft", "--preferences", path) as server:
        records = [
            {"prompt": f"Say\n{number} 日本", "chosen": "yes", "rejected": "no"}
            for number in range(3)
        ]
        for record in records:
            assert server.post("/api/preferences", **record, other=1).status_code == 201
        for invalid in (
            {"prompt": "a"},
            {**records[0], "rejected": "yes"},
            {**records[0], "prompt": 5},
        ):
            assert server.post("/api/preferences", **invalid).status_code == 400
    assert [json.loads(line) for line in path.read_text().splitlines()] == records
    assert len(read_record_files([str(path)], parse_preference).records) == 3
