"""Tasks that a launcher has started together, and that were not told so."""

import pytest

from twinreel.base.errors import UserError
from twinreel.engine.start.scheduler import check_tasks


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, "SLURM_PROCID=1"),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}, "SLURM_STEP_NUM_TASKS=2"),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "8"}, "OMPI_COMM_WORLD_SIZE=8"),
        ({"PMI_RANK": "3", "PMI_SIZE": "4"}, "PMI_RANK=3"),
        ({"MV2_COMM_WORLD_RANK": "0", "MV2_COMM_WORLD_SIZE": "4"}, "MV2_COMM_WORLD_SIZE=4"),
    ],
)
def test_several_tasks_of_a_launcher_must_know_of_each_other(environment, shown):
    with pytest.raises(UserError) as caught:
        assert check_tasks(processes=1, environment=environment) is None
    message = str(caught.value)
    assert shown in message and "--distributed" in message and "--coordinator" in message
    check_tasks(processes=2, environment=environment)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "16", "SLURM_JOB_ID": "5"},  # a batch script, outside of srun
        {"SLURM_NTASKS": "4"},  # a shell of salloc
        {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"},
        {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"},
        {"PMI_RANK": "", "PMI_SIZE": "x"},
    ],
)
def test_a_single_task_trains_alone(environment):
    assert check_tasks(processes=1, environment=environment) is None


def test_a_run_looks_before_it_touches_its_workdir(tmp_path, monkeypatch):
    from engine_toy import ToyObjective, batches, config

    from twinreel.engine.loop.train import train

    monkeypatch.setenv("SLURM_PROCID", "1")
    with pytest.raises(UserError, match="has started several tasks"):
        train(objective=ToyObjective(), batches=batches, workdir=tmp_path / "run", config=config(), meta={})
    assert not (tmp_path / "run").exists()
