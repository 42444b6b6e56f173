"""detect.py from outside: pictures and volumes of any size, overlays, lines, and what is wrong."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from PIL import Image

import labkit
from tp6_real_world.brain_tumor import detect, evaluate, train
from tp6_real_world.brain_tumor.phantoms import phantom


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The outputs of a smoke training, the one that all of these tests share."""
    folder = tmp_path_factory.mktemp("trained")
    import keras

    compile_model = keras.Model.compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_HOME", str(folder))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.delenv("LABKIT_DATA", raising=False)
        patch.setattr(labkit.run.tracking.Mirror, "begin", lambda *arguments: {})
        patch.setattr(  # a graph would take longer to make than the training to run
            keras.Model,
            "compile",
            lambda model, *rest, **named: compile_model(
                model, *rest, **named | {"run_eagerly": True}
            ),
        )
        train.main(["--smoke", "--data", "sample"])
    return folder


@pytest.fixture(autouse=True)
def use(trained, monkeypatch):
    monkeypatch.setenv("LABKIT_HOME", str(trained))


def files(folder) -> list:
    """The same head as PNG in grey, JPEG in colour, 16-bit TIFF, RGBA, and two NIfTI volumes."""
    images, _ = phantom(np.random.default_rng(3), 5, 80)
    image = images[2]
    grey = Image.fromarray(image[..., 1])
    grey.resize((301, 217)).save(folder / "wide.png")
    Image.fromarray(image).resize((64, 90)).save(folder / "tall.jpg")
    Image.fromarray(image[..., 1].astype(np.uint16) * 200).save(folder / "deep.tif")
    grey.convert("RGBA").save(folder / "clear.png")
    volume = np.moveaxis(images[..., 1], 0, 2).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / "flair.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.stack([volume] * 4, axis=-1), np.eye(4)), folder / "a.nii")
    return [folder / name for name in
            ("wide.png", "tall.jpg", "deep.tif", "clear.png", "flair.nii.gz", "a.nii")]  # fmt: skip


def test_every_file_gets_a_line_and_an_overlay(tmp_path, capsys):
    paths = files(tmp_path)
    out = tmp_path / "new" / "overlays"
    found = detect.main([*map(str, paths), "--out", str(out)])
    lines = capsys.readouterr().out.splitlines()
    assert detect.CAVEAT in lines
    assert any("phantoms" in line for line in lines)
    assert list(found) == [str(path) for path in paths]
    assert all(0 <= value <= 1 for value in found.values())
    for path in paths:
        (line,) = (line for line in lines if line.startswith(f"{path}: "))
        assert f"probability {found[str(path)]:.2f}" in line
        file = out / f"{path.name.removesuffix('.gz').replace('.', '_')}_overlay.png"
        assert str(file) in line
        with Image.open(file) as overlay:
            assert min(overlay.size) >= detect.SHOWN_SIDE
    for name in ("flair_nii", "a_nii"):
        mask = nibabel.load(out / f"{name}_mask.nii.gz")
        assert mask.shape == (80, 80, 5)
    assert found[str(paths[4])] == pytest.approx(found[str(paths[5])])


def test_a_mask_is_drawn_where_it_was_found(trained):
    run = labkit.find_run("tp6_real_world.brain_tumor.train")

    class Bright:
        """A network that says tumour where FLAIR is bright."""

        input_shape = (None, 32, 32, 1)

        def predict(self, x, **settings):
            return 20 * (x - 1.0)

    picture = np.full((60, 100, 3), 50, np.float32)
    picture[10:30, 60:90] = 250
    _, pixels = detect.ask(run, Bright(), picture[None])
    assert pixels.shape == (1, 60, 100)
    inside = pixels[0, 14:26, 66:84]
    assert inside.min() > 0.5
    assert pixels[0, :, :50].max() < 0.5


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("absent.png", None, "absent"),
        ("broken.png", b"no picture", "unreadable"),
        ("broken.nii.gz", b"no volume", "unreadable"),
        ("tiny.png", (3, 90), "got 90x3"),
    ],
)
def test_bad_files_are_one_message_and_nothing_is_written(tmp_path, capsys, name, content, named):
    path, good = tmp_path / name, files(tmp_path)[0]
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        Image.fromarray(np.zeros(content, np.uint8)).save(path)
    with pytest.raises(SystemExit) as stop:
        detect.main([str(good), str(path), "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert str(path) in message
    assert named in message
    assert not (tmp_path / "out").exists()


def test_an_unknown_run_or_no_file_is_said(tmp_path, capsys):
    for arguments in ([str(tmp_path / "a.png"), "--run", "no-such-run"], []):
        with pytest.raises(SystemExit) as stop:
            detect.main(arguments)
        assert stop.value.code == 2
    assert "no-such-run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "value"), [("size", "20"), ("size", "36"), ("width", "0"), ("neighbours", "-1")]
)
def test_impossible_settings_are_refused(flag, value, capsys):
    with pytest.raises(SystemExit) as stop:
        train.main([f"--{flag}", value])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert f"--{flag}" in message
    assert value in message


def test_the_worst_patients_come_first(trained):
    from tp6_real_world.brain_tumor import data

    part = data.load("sample", smoke=True).test
    groups = np.unique(part.groups)
    predicted = part.y.copy()
    predicted[part.groups == groups[1]] = False
    table = evaluate.patients_table(part, predicted).splitlines()
    assert part.names[part.groups == groups[1]][0] in table[2]
    assert "0.000" in table[2]
