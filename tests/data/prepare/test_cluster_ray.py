"""Scaled-out preparation with Ray."""

import pytest
from tests.data.prepare.conftest import broken_corpus, drafts

pytest.importorskip("datatrove", reason="needs datatrove: pip install 'auto-g-nano[scale]'")

from gnano.data.prepare.cluster import ClusterPreparation

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_tasks")]


@pytest.fixture(scope="module")
def ray():
    module = pytest.importorskip("ray", reason="needs ray: pip install 'auto-g-nano[scale]'")
    module.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        _memory=8 * 2**30,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield module
    module.shutdown()


def test_errors_on_ray_are_reported_and_a_corrected_run_completes(
    ray, config, files, corpus, tmp_path, capfd, reference_folder
):
    scaled, path, good = broken_corpus(config, corpus, tmp_path, "two")
    with pytest.raises(ValueError, match=r"b/1\.jsonl, line 71: it is not JSON"):
        ClusterPreparation(scaled, "ray", tasks=3, workers=2).run()
    before = drafts(scaled.folder)
    assert len(before) >= 6  # the other ranks came to their end
    assert "Traceback" not in capfd.readouterr().err
    path.write_text(good)
    ClusterPreparation(scaled, "ray", tasks=1).run()
    assert files(scaled.folder) == files(reference_folder)
