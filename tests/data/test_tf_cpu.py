"""How tensorflow is imported; that Keras is not is asserted in prepare/test_building.py, in a process of its own."""

import os

from twinreel.data import tf_cpu


def test_the_variable_that_leaves_keras_out_is_set_for_the_import_alone(monkeypatch):
    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
    with tf_cpu._without_keras():
        assert os.environ["TF_USE_LEGACY_KERAS"] == "1"
    assert "TF_USE_LEGACY_KERAS" not in os.environ


def test_a_users_choice_of_keras_is_kept(monkeypatch):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "0")
    with tf_cpu._without_keras():
        assert os.environ["TF_USE_LEGACY_KERAS"] == "0"
    assert os.environ["TF_USE_LEGACY_KERAS"] == "0"
