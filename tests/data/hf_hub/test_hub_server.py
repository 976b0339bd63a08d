"""The local Hub itself."""

from tests.data.hf_hub.hub_server import Hub


def test_a_folder_of_files_can_be_served(tmp_path):
    (tmp_path / "set/data").mkdir(parents=True)
    (tmp_path / "set/data/a.jsonl").write_bytes(b"{}")
    hub = Hub()
    hub.add("me/folder", tmp_path / "set")
    assert hub.repositories["me/folder"].files == {"data/a.jsonl": b"{}"}
