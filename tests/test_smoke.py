"""Every lab script, whole, in seconds: `main(["--smoke"])`."""

import importlib

import pytest

SCRIPTS = [  # in the order of use; test_comparison runs the third of TP2
    "tp1_mnist_api.train_model",
    "tp1_mnist_api.evaluate",
    pytest.param("tp2_improvement.tp2_ex1_bias_variance", marks=pytest.mark.slow),
    pytest.param("tp2_improvement.tp2_ex2_regularization", marks=pytest.mark.slow),
    pytest.param("tp2_improvement.tp2_ex4_batchnorm", marks=pytest.mark.slow),
    "tp3_cnn_resnet.cnn_classification",
    "tp3_cnn_resnet.evaluate",
    "tp3_cnn_resnet.style_transfer",
    pytest.param("tp3_cnn_resnet.segmentation_demo", marks=pytest.mark.slow),
    pytest.param("tp3_cnn_resnet.box_demo", marks=pytest.mark.slow),
    *(
        pytest.param(script, marks=pytest.mark.slow)
        for script in (
            "tp4_unet_conv3d.unet_segmentation",
            "tp4_unet_conv3d.evaluate",
            "tp4_unet_conv3d.loss_comparison",
            "tp4_unet_conv3d.conv3d_analysis",
            "tp4_unet_conv3d.volume_segmentation",
            "tp5_seq2seq_attention.attention_exercise",
            "tp5_seq2seq_attention.seq2seq_attention",
            "tp5_seq2seq_attention.evaluate",
        )
    ),
]


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory):
    return tmp_path_factory.mktemp("smoke")


@pytest.mark.parametrize("script", SCRIPTS)
def test_smoke(script, shared_home, monkeypatch, python):
    monkeypatch.setenv("LABKIT_HOME", str(shared_home))
    if script.endswith("evaluate"):  # a process of its own must know what the saved model needs
        done = python(f"{script.replace('.', '/')}.py", "--smoke", "--data", "sample")
        assert done.returncode == 0, done.stderr
        return
    metrics = importlib.import_module(script).main(["--smoke", "--data", "sample"])
    assert metrics
    assert all(isinstance(value, float) for value in metrics.values())


@pytest.mark.slow
@pytest.mark.parametrize("model", ["dense", "dense-strong"])
def test_smoke_of_the_other_models(model):
    from tp1_mnist_api.train_model import main

    assert main(["--smoke", "--data", "sample", "--model", model])["test_accuracy"] >= 0
