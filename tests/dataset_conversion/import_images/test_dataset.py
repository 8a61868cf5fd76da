"""The dataset that an import makes: fields of view, groups, warnings, previews, and how it is added to or replaced."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinov3.utils.atomic_files import write_json
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
from tests.dataset_conversion.import_images.conftest import BLUE, RED, Outcome, Run, save, save_photo

PLACES = ("-i", "images", "-m", "masks")
DOT = [[0, 255], [0, 0]]


def cases(*names: str, images: str = "images", masks: str = "masks", first_seed: int = 0) -> None:
    """Writes 2 x 2 noise and a mask with one pixel for each name."""
    for seed, name in enumerate(names, first_seed):
        save_photo(f"{images}/{name}.png", seed)
        save(f"{masks}/{name}.png", DOT)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_drive_as_it_is_downloaded(run: Run) -> None:
    rng = np.random.default_rng(0)
    field = np.zeros((6, 6), np.uint8)
    field[1:5, 1:5] = 255
    for name in ("21", "22"):
        save(f"training/images/{name}_training.tif", rng.integers(1, 255, (6, 6, 3), np.uint8))
        save(f"training/1st_manual/{name}_manual1.gif", np.eye(6, dtype=np.uint8) * 255)
        save(f"training/mask/{name}_training_mask.gif", field)
    done = run("-i", "training/images", "-m", "training/1st_manual", "--fov", "training/mask")
    assert done.code == 0
    assert done.cases() == ["21", "22"]
    assert done.labels("21") == np.where(field, np.eye(6), 2).tolist()
    assert done.description["labels"] == {"background": 0, "foreground": 1, "ignore": 2}
    assert "paired by rule 2" in done.out
    row = done.rows()[0]
    assert (row["image"], row["mask"], row["fov"]) == (
        "images/21_training.tif",
        "1st_manual/21_manual1.gif",
        "mask/21_training_mask.gif",
    )
    assert (row["pixels_foreground"], row["pixels_ignore"]) == ("4", "20")
    assert row["image_sha256"] == hashlib.sha256(Path("training/images/21_training.tif").read_bytes()).hexdigest()
    verify_dataset_integrity(str(done.folder), 1)


def test_outside_may_be_background(run: Run) -> None:
    save_photo("images/a.png")
    save("masks/a.png", [[0, 255], [255, 0]])
    save("fov/a_mask.png", [[255, 255], [0, 0]])
    done = run(*PLACES, "--fov", "fov", "--outside", "background")
    assert done.labels("a") == [[0, 1], [0, 0]]
    assert "ignore" not in done.description["labels"]


def fundus() -> np.ndarray:
    """A bright disc with a dark hole in a nearly black frame that has a bright speck."""
    image = np.full((12, 14, 3), 15, np.uint8)
    image[2:9, 3:12, 1] = 90
    image[4:6, 5:7] = 0
    image[11, 13] = 200
    image[4, 4] = (7, 91, 3)
    return image


def test_auto_finds_the_largest_piece_and_fills_it(run: Run) -> None:
    save("images/a.png", fundus())
    save("masks/a.png", np.eye(12, 14, dtype=np.uint8) * 255)
    done = run(*PLACES, "--fov", "auto")
    expected = np.full((12, 14), 2)
    expected[2:9, 3:12] = np.eye(12, 14)[2:9, 3:12]
    assert done.labels("a") == expected.tolist()


def test_cropped_pictures_come_back_on_the_full_grid(run: Run) -> None:
    save("images/a.png", fundus())
    save("masks/a.png", np.eye(12, 14, dtype=np.uint8) * 255)
    done = run(*PLACES, "--crop_fov")
    np.testing.assert_array_equal(done.image("a"), fundus()[2:9, 3:12])
    row = done.rows()[0]
    assert [row[name] for name in ("crop_y", "crop_x", "crop_height", "crop_width", "height", "width")] == [
        "2", "3", "7", "9", "12", "14",
    ]  # fmt: skip
    save("predicted/a.png", np.ones((7, 9), np.uint8))
    run("--predictions", "-d", "71", "-i", "predicted", "-o", "whole", "--full_grid", dataset=False)
    expected = np.zeros((12, 14))
    expected[2:9, 3:12] = 1
    assert np.asarray(Image.open("whole/a.png")).tolist() == expected.tolist()


def test_both_eyes_share_a_fold(run: Run) -> None:
    names = [f"p{number}_{eye}" for number in (1, 2, 3) for eye in "LR"]
    cases(*names)
    done = run(*PLACES, "--group", r"^(p\d+)", "--folds", "3")
    assert len(done.splits) == 3
    assert sorted(name for split in done.splits for name in split["val"]) == names
    for split in done.splits:
        assert [name[:2] for name in split["val"]][0::2] == [name[:2] for name in split["val"]][1::2]
        assert sorted(split["train"] + split["val"]) == names
    done = run(*PLACES, "--group", r"^(p\d+)", "--overwrite")
    assert done.code == 3
    assert "6 training cases in 3 groups cannot be split into 5 folds; choose fewer with --folds" in done.err


def test_groups_of_a_table_and_their_absence(run: Run) -> None:
    cases("a", "b", "c")
    Path("groups.csv").write_text("case,group\na,1\nb,2\nc,1\n")
    done = run(*PLACES, "--group", "groups.csv", "--folds", "2")
    assert sorted(sorted(split["val"]) for split in done.splits) == [["a", "c"], ["b"]]
    Path("groups.csv").write_text("image,group\na.png,1\nb.png,2\n")
    assert "has no group for c.png" in run(*PLACES, "--group", "groups.csv", "--overwrite").err
    assert "matches none of the cases" in run(*PLACES, "--group", "x(.)", "--overwrite").err
    done = run(*PLACES, "--overwrite")
    assert not (done.folder / "splits_final.json").exists()


def test_names_that_look_like_one_patient_cause_a_warning(run: Run) -> None:
    cases(*(f"p{number}_{eye}" for number in (1, 2, 3) for eye in "LR"))
    assert "keep them in one fold with --group" in run(*PLACES).out


def test_the_same_picture_twice(run: Run) -> None:
    cases("a", "b", "c")
    Image.open("images/a.png").save("images/b.tif")
    Path("images/b.png").unlink()
    done = run(*PLACES, "--folds", "2")
    assert "the same picture twice: a (images/a.png) and b (images/b.tif); remove one" in done.out
    assert sorted(sorted(split["val"]) for split in done.splits) == [["a", "b"], ["c"]]


def test_a_picture_in_training_and_test_is_a_leak(run: Run) -> None:
    cases("a", "b")
    cases("t", images="ti", masks="tm", first_seed=1)
    done = run(*PLACES, "-ti", "ti", "-tm", "tm")
    assert done.code == 3
    assert "The same picture is in training and test: b (images/b.png) and t (ti/t.png)" in done.err
    assert list(done.raw.iterdir()) == []


def test_a_patient_in_training_and_test_causes_a_warning(run: Run) -> None:
    cases("p1_L", "p2_L")
    cases("p2_R", images="ti", masks="tm", first_seed=5)
    done = run(*PLACES, "-ti", "ti", "-tm", "tm", "--group", r"^(p\d)", "--folds", "2")
    assert done.code == 0
    assert "the group p2 is in imagesTr (p2_L) and imagesTs (p2_R)" in done.out


def test_masks_that_look_wrong(run: Run) -> None:
    cases("a", "b")
    save("masks/b.png", [[0, 0], [0, 0]])
    assert "1 mask without foreground: b" in run(*PLACES).out
    save("masks/a.png", [[0, 0], [0, 0]])
    done = run(*PLACES, "--overwrite")
    assert done.code == 3
    assert "None of the 2 masks has a pixel of foreground" in done.err
    for name in "ab":
        save(f"masks/{name}.png", [[255, 0], [255, 255]])
    done = run(*PLACES, "--overwrite")
    assert "more than 60% of the pixels are foreground in 2 of 2 masks; they may be inverted" in done.out


def test_a_mask_that_is_its_picture_is_refused(run: Run) -> None:
    save("images/a.png", [[0, 255], [255, 0]])
    save("masks/a.png", [[0, 255], [255, 0]])
    done = run(*PLACES)
    assert done.code == 3
    assert "masks/a.png) is the picture itself" in done.err


def test_sizes_that_differ_name_both_files(run: Run) -> None:
    save_photo("images/a.png", shape=(2, 3, 3))
    save("masks/a.png", [[0, 255], [255, 0], [0, 0]])
    done = run(*PLACES)
    assert done.code == 3
    assert "images/a.png has 2 x 3 pixels (height x width) and its mask masks/a.png 3 x 2" in done.err
    assert "turned by 90 degrees" in done.err


def test_pictures_without_mask(run: Run) -> None:
    cases("a", "b")
    save_photo("images/c.png", 9)
    done = run(*PLACES)
    assert done.code == 3
    assert "1 picture of 3 without mask: c.png" in done.err
    done = run(*PLACES, "--images_without_mask", "skip")
    assert (done.cases("Tr"), (done.folder / "imagesTs").exists()) == (["a", "b"], False)
    done = run(*PLACES, "--images_without_mask", "test", "--overwrite")
    assert (done.cases("Tr"), done.cases("Ts")) == (["a", "b"], ["c"])


def test_names_become_safe_and_stay_apart(run: Run) -> None:
    cases("Blick é (1)", "A.b", "a_b")
    done = run(*PLACES)
    assert done.cases() == ["A_b", "Blick_e_1", "a_b_2"]
    assert [row["image"] for row in done.rows()] == ["images/A.b.png", "images/Blick é (1).png", "images/a_b.png"]


def test_two_runs_give_the_same_bytes(run: Run) -> None:
    cases("p1_L", "p1_R", "p2_L")
    words = [*PLACES, "--group", r"(p\d)", "--folds", "2", "--preview", "2"]
    first = digests(run(*words).folder)
    assert {"dataset.json", "import.csv", "splits_final.json", "labelsTr/p1_L.png"} <= first.keys()
    assert digests(run(*words, "--overwrite").folder) == first


def test_a_dry_run_writes_nothing(run: Run) -> None:
    cases("a", "b")
    save("masks/b.png", [[0, 0], [0, 0]])
    done = run(*PLACES, "--dry_run", "--preview", "1")
    assert done.code == 0
    assert "a (train): images/a.png with masks/a.png, 2 x 2, background 75.00 %, foreground 25.00 %" in done.out
    assert "1 mask without foreground: b" in done.out
    assert list(done.raw.iterdir()) == []


def test_previews_show_outlines_in_the_colours_of_the_classes(run: Run) -> None:
    for seed, name in enumerate("abcde"):
        save_photo(f"images/{name}.png", seed, (5, 7, 3))
        mask = np.zeros((5, 7, 3), np.uint8)
        if name != "d":
            mask[1:4, 1:4], mask[0, 6] = RED, BLUE
        save(f"masks/{name}.png", mask)
    done = run(*PLACES, "--labels", "artery=#ff0000", "vein=#0000ff", "--preview", "1")
    drawn = sorted(path.stem for path in (done.folder / "preview").iterdir())
    assert "d" in drawn  # it caused a warning
    assert len(drawn) in (1, 2)
    done = run(*PLACES, "--labels", "artery=#ff0000", "vein=#0000ff", "--preview", "5", "--overwrite")
    picture = np.asarray(Image.open(done.folder / "preview" / "a.png"))
    expected = np.array(done.image("a"))
    expected[1:4, 1:4], expected[0, 6] = RED, BLUE
    expected[2, 2] = done.image("a")[2, 2]
    np.testing.assert_array_equal(picture, expected)


def test_an_existing_dataset_is_refused_replaced_or_extended(run: Run) -> None:
    cases("a", "b")
    run(*PLACES)
    done = run(*PLACES)
    assert done.code == 2
    assert "Dataset071_Vessels exists already; choose another number with -d, replace it with --overwrite" in done.err
    assert "belongs to Dataset071_Vessels" in run("-d", "71", "-n", "Other", *PLACES, "--overwrite").err
    cases("c", images="more", masks="more_masks", first_seed=7)
    done = run("-i", "more", "-m", "more_masks", "--add")
    assert done.code == 0
    assert done.cases() == ["a", "b", "c"]
    assert done.description["numTraining"] == 3
    assert [row["case"] for row in done.rows()] == ["a", "b", "c"]
    verify_dataset_integrity(str(done.folder), 1)
    done = run("-i", "more", "-m", "more_masks", "--add")
    assert "the dataset already has the case c" in done.err
    assert done.cases() == ["a", "b", "c"]
    run("-i", "more", "-m", "more_masks", "--overwrite")
    assert done.cases() == ["c"]


def test_cases_of_another_form_are_not_added(run: Run) -> None:
    cases("a")
    run(*PLACES)
    cases("b", images="more", masks="more_masks", first_seed=7)
    done = run("-i", "more", "-m", "more_masks", "--add", "--labels", "vessel")
    assert done.code == 3
    assert "the new cases have labels" in done.err
    save("more/b.png", [[1, 2], [3, 4]])
    assert "the new cases have channel_names" in run("-i", "more", "-m", "more_masks", "--add").err
    save_photo("more/b.png", 0)
    assert "the same picture twice: a" in run("-i", "more", "-m", "more_masks", "--add").out
    assert "there is no" in run("-d", "5", "-n", "New", "-i", "more", "-m", "more_masks", "--add").err


def test_groups_of_added_cases(run: Run) -> None:
    cases("p1_L", "p2_L")
    run(*PLACES, "--group", r"(p\d)", "--folds", "2")
    cases("p1_R", images="more", masks="more_masks", first_seed=7)
    done = run("-i", "more", "-m", "more_masks", "--add")
    assert done.code == 2
    assert "split by group, so say the groups of the new cases with --group" in done.err
    done = run("-i", "more", "-m", "more_masks", "--add", "--group", r"(p\d)", "--folds", "2")
    assert sorted(sorted(split["val"]) for split in done.splits) == [["p1_L", "p1_R"], ["p2_L"]]


def test_a_failure_leaves_an_older_dataset_as_it_was(run: Run) -> None:
    cases("a", "b")
    before = digests(run(*PLACES).folder)
    Path("images/b.png").write_bytes(Path("images/b.png").read_bytes()[:40])
    done = run(*PLACES, "--overwrite")
    assert done.code == 3
    assert "images/b.png" in done.err
    assert done.err.count("\n") == 1
    assert digests(done.folder) == before
    assert [path.name for path in done.raw.iterdir()] == ["Dataset071_Vessels"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-i", "images"], "-d, -n is missing"),
        (["-d", "1000", "-n", "V", *PLACES], "must be from 0 to 999"),
        (["-d", "1", "-n", "a/b", *PLACES], "cannot be the name of a dataset"),
        (["-d", "1", "-n", "V", *PLACES, "--add", "--overwrite"], "choose one"),
        (["-d", "1", "-n", "V", *PLACES, "--folds", "1"], "at least 2 folds"),
        (["-d", "1", "-n", "V", *PLACES, "--threshold", "0"], "from 1 to 255"),
        (["-d", "1", "-n", "V", *PLACES, "--snap", "-1"], "from 0 to 442"),
        (["-d", "1", "-n", "V", *PLACES, "-tm", "x"], "without test images"),
        (["-d", "1", "-n", "V", *PLACES, "-o", "x"], "belong to --predictions"),
        (["-d", "1", "-n", "V", "-i", "images", "-m", "nowhere"], "There is no nowhere; "),
        (["-d", "1", "-n", "V", "-i", "images", "-m", "not/here"], "there is no not either: correct the path"),
    ],
)
def test_flags_that_contradict_each_other(run: Run, words: list[str], said: str) -> None:
    cases("a")
    done = run(*words, dataset=False)
    assert done.code == 2
    assert said in done.err


def test_flags_are_not_abbreviated(run: Run, capsys: pytest.CaptureFixture) -> None:
    cases("a")
    with pytest.raises(SystemExit, match="2"):
        run(*PLACES, "--label", "vessel=1")
    assert "unrecognized arguments: --label" in capsys.readouterr().err


def test_norm_selects_the_channel_names(run: Run) -> None:
    cases("a")
    done = run(*PLACES, "--norm", "rgb_to_0_1")
    assert set(done.description["channel_names"].values()) == {"rgb_to_0_1"}
    assert "model.input_norm=imagenet" in done.out


def test_forty_pictures(run: Run) -> None:
    cases(*(f"{number:02d}" for number in range(40)))
    done = run(*PLACES)
    assert len(done.cases()) == len(done.rows()) == done.description["numTraining"] == 40


# predictions of other programs


def test_predictions_become_label_maps_of_the_cases(run: Run) -> None:
    for seed, name in enumerate(("21_training", "22_training")):
        save_photo(f"images/{name}.png", seed)
        save(f"masks/{name[:2]}_manual1.png", [[RED, BLUE], [(0, 0, 0), RED]])
    run(*PLACES, "--labels", "artery=#ff0000", "vein=#0000ff")
    padded = np.zeros((4, 4, 3), np.uint8)
    padded[1:3, 2:4] = [[BLUE, RED], [(0, 0, 0), (0, 0, 0)]]
    save("peer/22_training.png", padded)
    done = run("--predictions", "-d", "71", "-n", "peer", "-i", "peer", "--crop", "1", "2", "2", "2", dataset=False)
    assert done.code == 0
    target = done.raw.parent / "nnUNet_results" / "Dataset071_Vessels" / "peer"
    assert [path.name for path in target.iterdir()] == ["22.png"]
    assert np.asarray(Image.open(target / "22.png")).tolist() == [[2, 1], [0, 0]]
    done = run("--predictions", "-d", "71", "-n", "other", "-i", "peer", dataset=False)
    assert done.code == 3
    assert "22_training.png has 4 x 4 pixels" in done.err
    assert "--crop Y X HEIGHT WIDTH" in done.err


def test_predictions_without_a_dataset(run: Run) -> None:
    save("peer/a b.png", [[RED, BLUE]])
    words = ["--predictions", "-i", "peer", "--labels", "vein=#0000ff", "artery=#ff0000"]
    done = run(*words, dataset=False)
    assert "-o FOLDER, or a dataset" in done.err
    assert run(*words, "-o", "maps", dataset=False).code == 0
    assert np.asarray(Image.open("maps/a_b.png")).tolist() == [[2, 1]]
    assert "maps exists already" in run(*words, "-o", "maps", dataset=False).err
    assert "leaves peer/a b.png" in run(*words, "-o", "m", "--crop", "0", "0", "2", "2", dataset=False).err
    assert "leave out masks" in run(*words, "-o", "m", "-m", "masks", dataset=False).err


def test_predictions_name_classes_of_the_dataset(run: Run) -> None:
    cases("a")
    run(*PLACES)
    save("peer/a.png", DOT)
    words = ["--predictions", "-d", "71", "-i", "peer"]
    done = run(*words, "-o", "m", "--labels", "vein=255", dataset=False)
    assert done.code == 2
    assert "Dataset071_Vessels has no class vein; name the classes of the predictions as there: foreground" in done.err
    assert run(*words, "-o", "m", dataset=False).code == 0
    assert np.asarray(Image.open("m/a.png")).tolist() == [[0, 1], [0, 0]]


def test_a_dataset_of_another_origin_has_no_table(run: Run, nnunet_folders: dict[str, Path]) -> None:
    folder = nnunet_folders["nnUNet_raw"] / "Dataset071_Vessels"
    folder.mkdir()
    content = {
        "channel_names": {"0": "R"},
        "labels": {"background": 0, "v": 1},
        "numTraining": 1,
        "file_ending": ".png",
    }
    write_json(content, folder / "dataset.json")
    cases("a")
    done: Outcome = run(*PLACES, "--add")
    assert done.code == 3
    assert "was not made by nnUNetv2_import_images" in done.err
