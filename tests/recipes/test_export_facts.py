from __future__ import annotations

from luthier.recipes.answering import find_model
from luthier.recipes.export_facts import model_facts


def test_a_run_tells_base_data_settings_and_metrics(small_run):
    (small_run.model / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    trained = small_run.train(max_steps=1, eval_steps=1)
    facts = model_facts(find_model(str(trained.folder)))
    assert facts["base"] == str(small_run.model)
    assert facts["licence"] == "apache-2.0"
    assert facts["run"] == str(trained.folder.resolve())
    assert facts["settings"]["learning_rate"] == 1e-2
    assert facts["settings"]["stage"] == "sft"
    assert "use_dora" not in facts["settings"]
    assert facts["metrics"]["eval_loss"] > 0
    data = trained.manifest()["data"]
    assert facts["data"]["prepared data"] == data["key"]
    sha256 = data["inputs"]["train"][0]["sha256"]
    assert f"sha256 {sha256}" in facts["data"].values()
    assert facts["model"]["adapter"]["weights_sha256"]


def test_of_a_bare_model_only_its_files_are_known(tiny_llama):
    folder = tiny_llama()
    facts = model_facts(find_model(str(folder)))
    assert facts["name"] == "tiny"
    assert facts["licence"] is None
    assert set(facts) == {"name", "base", "licence", "model"}


def test_a_card_without_a_licence_names_none(tiny_llama):
    folder = tiny_llama()
    (folder / "README.md").write_text("# A model\n")
    assert model_facts(find_model(str(folder)))["licence"] is None
