"""Every layout by a small export that the test writes as the tool would."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.dataset_conversion.import_images.conftest import BLACK, BLUE, RED, Run, save, save_palette, save_photo

SQUARE = [1, 1, 4, 1, 4, 3, 1, 3]  # 6 pixels: rows 1 and 2, columns 1 to 3
FILLED = [[1 if y in (1, 2) and x in (1, 2, 3) else 0 for x in range(5)] for y in range(5)]


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def photos(*paths: str, shape: tuple[int, ...] = (5, 5, 3)) -> None:
    for seed, path in enumerate(paths):
        save_photo(path, seed, shape)


def painted(**pixels: int) -> np.ndarray:
    """5 x 5 zeros, except for `y1x2=3`."""
    labels = np.zeros((5, 5), np.uint8)
    for place, value in pixels.items():
        labels[int(place[1]), int(place[3])] = value
    return labels


# pairs


def test_two_folders_below_one(run: Run) -> None:
    photos("data/images/a.jpg")
    save("data/masks/a.png", painted(y1x2=255))
    done = run("-i", "data")
    assert done.labels("a") == painted(y1x2=1).tolist()
    assert done.rows()[0]["mask"] == "masks/a.png"
    Path("data/labels").mkdir()
    save("data/labels/a.png", painted())
    done = run("-i", "data", "--layout", "pairs", "--overwrite")
    assert done.code == 2
    assert "give their folder with -m (it has the folders images, labels, masks)" in done.err


def test_masks_beside_their_pictures(run: Run) -> None:
    photos("all/a.png", "all/b.png")
    save("all/a_mask.png", painted(y1x2=255))
    save("all/b_mask.png", painted(y3x4=255))
    done = run("-i", "all", "-m", "all")
    assert (done.labels("a"), done.labels("b")) == (painted(y1x2=1).tolist(), painted(y3x4=1).tolist())


def test_test_folders(run: Run) -> None:
    photos("images/21_training.png", "test/01_test.png")
    save("masks/21_manual1.gif", painted(y1x2=255))
    save("test_masks/01_manual1.gif", painted(y3x4=255))
    done = run("-i", "images", "-m", "masks", "-ti", "test", "-tm", "test_masks")
    assert (done.cases("Tr"), done.cases("Ts")) == (["21"], ["01"])
    assert done.labels("01", "Ts") == painted(y3x4=1).tolist()
    done = run("-i", "images", "-m", "masks", "-ti", "test", "--overwrite")
    assert done.cases("Ts") == ["01_test"]
    assert not (done.folder / "labelsTs").exists()


def test_a_table_of_pictures(run: Run) -> None:
    photos("data/x/1.png", "data/y/1.png", "data/y/2.png")
    for number, name in enumerate("abc"):
        save(f"data/{name}.png", painted(**{f"y{number}x1": 255}))
    save("data/field.png", np.full((5, 5), 255, np.uint8) - painted(y4x4=255))
    write("data/t.csv", "image,mask,fov,group\nx/1.png,a.png,field.png,p\ny/1.png,b.png,,q\ny/2.png,c.png,,p\n")
    done = run("-i", "data/t.csv", "--folds", "2")
    assert done.cases() == ["2", "x_1", "y_1"]
    assert done.labels("x_1") == painted(y0x1=1, y4x4=2).tolist()
    assert [sorted(split["val"]) for split in done.splits] == [["2", "x_1"], ["y_1"]]
    write("data/t.csv", "image,mask\nx/1.png,a.png\nx/9.png,b.png\n")
    assert "t.csv, line 3: there is no data/x/9.png" in run("-i", "data/t.csv", "--overwrite").err
    Path("data/t.csv").write_bytes("image,mask\nMikroskop-\u00e4.png,a.png\n".encode("latin-1"))
    assert "t.csv is not in UTF-8" in run("-i", "data/t.csv", "--overwrite").err
    write("data/t.csv", "picture,mask\nx/1.png,a.png\n")
    assert "has the columns picture, mask" in run("-i", "data/t.csv", "--layout", "pairs", "--overwrite").err


# ade20k, mmsegmentation and Ultralytics


@pytest.mark.parametrize(
    ("images", "masks", "valid"), [("images", "annotations", "validation"), ("img_dir", "ann_dir", "val")]
)
def test_ade20k_has_values_ignores_255_and_brings_a_split(run: Run, images: str, masks: str, valid: str) -> None:
    first = "training" if valid == "validation" else "train"
    photos(f"e/{images}/{first}/a.jpg", f"e/{images}/{valid}/b.jpg")
    save(f"e/{masks}/{first}/a.png", painted(y0x0=2, y4x4=255))
    save(f"e/{masks}/{valid}/b.png", painted(y0x1=1))
    done = run("-i", "e")
    assert done.description["labels"] == {"background": 0, "class1": 1, "class2": 2, "ignore": 3}
    assert done.labels("a") == painted(y0x0=2, y4x4=3).tolist()
    assert done.splits == [{"train": ["a"], "val": ["b"]}]


def test_ade20k_with_names_and_without_zero(run: Run) -> None:
    photos("e/images/train/a.png")
    save("e/annotations/train/a.png", painted(y0x0=1, y4x4=7))
    done = run("-i", "e", "--labels", "wall=7", "sky=1", "--reduce_zero_label")
    expected = np.full((5, 5), 3)
    expected[0, 0], expected[4, 4] = 2, 1
    assert done.labels("a") == expected.tolist()
    assert done.description["labels"] == {"background": 0, "wall": 1, "sky": 2, "ignore": 3}


def test_ultralytics_names_its_values(run: Run) -> None:
    photos("e/images/train/a.png", "e/images/val/b.png")
    save("e/masks/train/a.png", painted(y0x0=2, y4x4=255))
    save("e/masks/val/b.png", painted(y0x1=1))
    write("e/data.yaml", "path: e\nnames:\n  0: background\n  1: artery\n  2: vein\n")
    done = run("-i", "e")
    assert done.description["labels"] == {"background": 0, "artery": 1, "vein": 2, "ignore": 3}
    assert done.labels("a") == painted(y0x0=2, y4x4=3).tolist()


def test_ultralytics_without_background(run: Run) -> None:
    photos("e/images/train/a.png")
    save("e/masks/train/a.png", painted(y0x0=1))
    write("e/data.yaml", "names: [road, car]\n")
    done = run("-i", "e")
    assert done.description["labels"] == {"background": 0, "road": 1, "car": 2}
    assert done.labels("a") == (painted(y0x0=1) + 1).tolist()


# voc


def voc(name: str, indices: np.ndarray) -> None:
    save_photo(f"v/JPEGImages/{name}.jpg", ord(name), (5, 5, 3))
    save_palette(f"v/SegmentationClass/{name}.png", indices, [BLACK, RED, BLUE])


@pytest.mark.parametrize("layout", ["auto", "voc", "cvat"])
def test_cvat_has_a_colour_map_and_lists(run: Run, layout: str) -> None:
    for name in "abc":
        voc(name, painted(y0x0=1, y1x1=2))
    write("v/labelmap.txt", "# label:color_rgb:parts:actions\nvein:0,0,255::\nbackground:0,0,0::\nartery:255,0,0::\n")
    write("v/ImageSets/Segmentation/train.txt", "a\n")
    write("v/ImageSets/Segmentation/val.txt", "c\n")
    done = run("-i", "v", "--layout", layout)
    assert done.description["labels"] == {"background": 0, "vein": 1, "artery": 2}
    assert done.labels("a") == painted(y0x0=2, y1x1=1).tolist()
    assert done.splits == [{"train": ["a"], "val": ["c"]}]


def test_labelme2voc_has_names_and_ignores_255(run: Run) -> None:
    voc("a", painted(y0x0=1, y1x1=2, y2x2=255))
    write("v/class_names.txt", "_background_\nvein\nartery\n")
    done = run("-i", "v")
    assert done.description["labels"] == {"background": 0, "vein": 1, "artery": 2, "ignore": 3}
    assert done.labels("a") == painted(y0x0=1, y1x1=2, y2x2=3).tolist()


def test_voc_lists_a_case_that_is_not_there(run: Run) -> None:
    voc("a", painted(y0x0=1))
    write("v/ImageSets/Segmentation/train.txt", "a\nz\n")
    assert "lists z in ImageSets/Segmentation without a picture" in run("-i", "v").err


# roboflow


def test_roboflow(run: Run) -> None:
    for number, part in enumerate(("train", "valid", "test")):
        save_photo(f"r/{part}/{part}_jpg.rf.1.jpg", number, (5, 5, 3))
        save(f"r/{part}/{part}_jpg.rf.1_mask.png", painted(y0x0=2, y1x1=1))
        write(f"r/{part}/_classes.csv", "Pixel Value, Class\n0, background\n1, cell\n2, wall\n")
    done = run("-i", "r")
    assert done.description["labels"] == {"background": 0, "cell": 1, "wall": 2}
    assert done.splits == [{"train": ["train_jpg_rf_1"], "val": ["valid_jpg_rf_1"]}]
    assert done.labels("test_jpg_rf_1", "Ts") == painted(y0x0=2, y1x1=1).tolist()


# coco


def coco(annotations: list[dict[str, Any]], **image: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 3, "file_name": "a.png", "height": 5, "width": 5} | image],
        "annotations": [{"id": number, "image_id": 3} | each for number, each in enumerate(annotations)],
        "categories": [{"id": 7, "name": "vein"}, {"id": 2, "name": "artery"}],
    }


@pytest.mark.parametrize("words", [["-i", "c"], ["-i", "c/images", "-m", "c/annotations/instances.json"]])
def test_coco_polygons_go_by_the_number_of_the_category(run: Run, words: list[str]) -> None:
    photos("c/images/a.png")
    write("c/annotations/instances.json", json.dumps(coco([{"category_id": 2, "segmentation": [SQUARE]}])))
    done = run(*words)
    assert done.description["labels"] == {"background": 0, "artery": 1, "vein": 2}
    assert done.labels("a") == FILLED


def test_coco_run_lengths_crowds_and_overlaps(run: Run) -> None:
    photos("c/a.png")
    runs = {"size": [5, 5], "counts": [6, 2, 17]}  # column 1, rows 1 and 2
    crowd = {"size": [5, 5], "counts": [24, 1]}
    annotations = [
        {"category_id": 2, "segmentation": [SQUARE]},
        {"category_id": 7, "segmentation": runs},
        {"category_id": 7, "segmentation": crowd, "iscrowd": 1},
    ]
    write("c/_annotations.coco.json", json.dumps(coco(annotations)))
    done = run("-i", "c")
    assert done.labels("a") == [[0] * 5, [0, 2, 1, 1, 0], [0, 2, 1, 1, 0], [0] * 5, [0, 0, 0, 0, 3]]
    assert done.rows()[0]["overlapping"] == "2"
    assert "2 pixels in 1 case belong to several classes, most in a (2)" in done.out
    done = run("-i", "c", "--labels", "vein=7", "artery=2", "--overwrite")
    assert done.labels("a")[1] == [0, 1, 2, 2, 0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (coco([{"category_id": 9, "segmentation": [SQUARE]}]), "has the category 9, which the file does not list"),
        (coco([{"category_id": 2, "segmentation": []}]), "has no segmentation"),
        (coco([{"category_id": 2, "segmentation": [[1, 2, 3]]}]), "at least three corners"),
        (coco([{"category_id": 2, "segmentation": [SQUARE]}], height=9), "describes it with 9 x 5"),
        (coco([{"category_id": 2, "segmentation": [[0, 0, 1e308, 0, 4, float("nan")]]}]), "at least three corners"),
        (coco([{"category_id": [2], "segmentation": [SQUARE]}]), "has the category [2]"),
        (coco([{"category_id": 2, "segmentation": [SQUARE], "image_id": {}}]), "has no image_id"),
        (coco([{"category_id": 2, "segmentation": [SQUARE], "image_id": 8}]), "annotations of the image 8"),
        (
            coco([{"category_id": 2, "segmentation": [SQUARE]}], file_name="z.png"),
            "the picture z.png; below c there is none",
        ),
        (coco([{"category_id": 2, "segmentation": [SQUARE]}], file_name="../a.png"), "lists the picture ../a.png"),
    ],
)
def test_coco_that_contradicts_itself(run: Run, content: dict[str, Any], said: str) -> None:
    photos("c/b.png" if "../" in said else "c/a.png", "a.png")
    write("c/instances.json", json.dumps(content))
    done = run("-i", "c")
    assert done.code == 3
    assert said in done.err


def test_coco_parts(run: Run) -> None:
    photos("c/train2017/a.png", "c/val2017/b.png")
    for part, name in (("train", "a.png"), ("val", "b.png")):
        content = coco([{"category_id": 2, "segmentation": [SQUARE]}], file_name=name)
        write(f"c/annotations/instances_{part}2017.json", json.dumps(content))
    assert run("-i", "c").splits == [{"train": ["a"], "val": ["b"]}]


# labelme


def labelme(*shapes: dict[str, Any], **others: Any) -> str:
    return json.dumps({"imagePath": "a.png", "imageHeight": 5, "imageWidth": 5, "shapes": list(shapes)} | others)


def test_labelme_shapes(run: Run) -> None:
    photos("l/a.png")
    buffer = BytesIO()
    Image.fromarray(np.array([[0, 255], [255, 255]], np.uint8)).save(buffer, "PNG")
    mask = base64.b64encode(buffer.getvalue()).decode()
    shapes = [
        {"label": "vein", "shape_type": "polygon", "points": [[1, 1], [4, 1], [4, 3], [1, 3]]},
        {"label": "artery", "shape_type": "rectangle", "points": [[1, 2], [0, 0]]},
        {"label": "disc", "shape_type": "circle", "points": [[4.5, 4.5], [4.5, 4]]},
        {"label": "cup", "shape_type": "mask", "points": [[3, 3], [4, 4]], "mask": mask},
        {"label": "__ignore__", "shape_type": "rectangle", "points": [[0, 4], [1, 5]]},
        {"label": "vein", "shape_type": "line", "points": [[0, 0], [4, 4]]},
    ]
    write("l/a.json", labelme(*shapes))
    done = run("-i", "l")
    assert done.description["labels"] == {"background": 0, "artery": 1, "cup": 2, "disc": 3, "vein": 4, "ignore": 5}
    assert done.labels("a") == [
        [1, 0, 0, 0, 0],
        [1, 4, 4, 4, 0],
        [0, 4, 4, 4, 0],
        [0, 0, 0, 0, 2],
        [5, 0, 0, 2, 2],
    ]
    assert "left out: 1 of type line" in done.out


def test_labelme_classes_in_the_order_of_the_labels(run: Run) -> None:
    photos("l/a.png", "l/b.png")
    square = {"shape_type": "polygon", "points": [[1, 1], [4, 1], [4, 3], [1, 3]]}
    write("l/a.json", labelme({"label": "v", **square}))
    write("l/b.json", labelme({"label": "a", **square}, imagePath="..\\elsewhere\\b.png"))
    done = run("-i", "l", "--labels", "vein=v", "artery=a")
    assert (done.labels("a")[1][1], done.labels("b")[1][1]) == (1, 2)
    assert "which no shape has; there are a, v" in run("-i", "l", "--labels", "cup", "--overwrite").err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (labelme({"label": "v", "shape_type": "mask", "points": [[0, 0], [1, 1]], "mask": "no"}), "no PNG in base64"),
        (labelme({"label": "v", "shape_type": "polygon", "points": [[0, 0], [1, 1]]}), "at least three corners"),
        (labelme({"label": "v", "points": [[0, 0], [1, "x"], [2, 2]]}), "must be a list of [x, y]"),
        (labelme({"shape_type": "polygon", "points": []}), "shape 0, has no label"),
        (labelme({"label": "v", "points": [[0, 0], [4, 0], [4, 4]]}, imageHeight=7), "describes it with 7 x 5"),
    ],
)
def test_labelme_files_that_are_wrong(run: Run, text: str, said: str) -> None:
    photos("l/a.png")
    write("l/a.json", text)
    done = run("-i", "l")
    assert done.code == 3
    assert said in done.err


# yolo


@pytest.mark.parametrize("folders", [("images/train", "labels/train"), ("train/images", "train/labels")])
def test_yolo_draws_smaller_polygons_on_top(run: Run, folders: tuple[str, str]) -> None:
    images, labels = folders
    photos(f"y/{images}/a.png", f"y/{images}/b.png", f"y/{images.replace('train', 'val')}/c.png")
    inner, outer = "1 0.2 0.2 0.4 0.2 0.4 0.4 0.2 0.4", "0 0 0 1 0 1 1 0 1"
    write(f"y/{labels}/a.txt", f"{inner}\n{outer}\n")
    write(f"y/{labels.replace('train', 'val')}/c.txt", f"{inner}\n")
    write("y/data.yaml", "names: [disc, cup]\n")
    done = run("-i", "y")
    assert done.description["labels"] == {"background": 0, "disc": 1, "cup": 2}
    assert done.labels("a") == (1 + painted(y1x1=1)).tolist()
    assert done.splits == [{"train": ["a", "b"], "val": ["c"]}]
    assert "1 pictures without text file count as pictures without object: b.png" in done.out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 0.5 0.5 0.1 0.1", "line 1 is a box"),
        ("2 0 0 1 0 1 1", "class 2 has no name"),
        ("0 0 0 1 0 1", "at least three corners"),
        ("0 0 0 5 0 5 5", "from 0 to 1"),
        ("vein 0 0 1 0 1 1", "is not class x1 y1"),
    ],
)
def test_yolo_lines_that_are_no_polygons(run: Run, line: str, said: str) -> None:
    photos("y/images/a.png")
    write("y/labels/a.txt", line)
    write("y/data.yaml", "names: {0: disc, 1: cup}\n")
    done = run("-i", "y")
    assert done.code == 3
    assert said in done.err


# one mask per class, one class per channel


def test_a_folder_per_class(run: Run) -> None:
    photos("images/p_01.png", "images/p_02.png")
    save("masks/vein/p_01_MA.tif", painted(y0x0=255, y1x1=255))
    save("masks/vein/p_02_MA.tif", painted(y2x2=255))
    save("masks/artery/p_01_EX.tif", painted(y1x1=255, y3x3=255))
    done = run("-i", "images", "-m", "masks", "--pair", r"p_(\d+)")
    assert done.description["labels"] == {"background": 0, "artery": 1, "vein": 2}
    assert done.labels("01") == painted(y0x0=2, y1x1=2, y3x3=1).tolist()
    assert done.labels("02") == painted(y2x2=2).tolist()
    assert "1 pixels in 1 case belong to several classes" in done.out
    done = run("-i", "images", "-m", "masks", "--labels", "vein", "artery", "--overlap", "crossing", "--overwrite")
    assert done.labels("01") == painted(y0x0=1, y1x1=3, y3x3=2).tolist()


def test_a_class_per_channel(run: Run) -> None:
    photos("images/a.png", shape=(1, 4, 3))
    save("masks/a.png", [[(255, 0, 255), (0, 255, 255), (255, 255, 255), BLACK]])
    channels = ("-i", "images", "-m", "masks", "--layout", "channels", "--labels", "artery=R", "vein=G")
    done = run(*channels)
    assert done.labels("a") == [[1, 2, 3, 0]]
    assert done.description["labels"] == {"background": 0, "artery": 1, "vein": 2, "crossing": 3}
    for words in (["--overlap", "both"], ["both=overlap"], ["both"], ["both=R+G"]):
        words = words if words[0] == "--overlap" else [*channels[-3:], *words]
        done = run(*channels[: -3 if words[0] == "--labels" else None], *words, "--overwrite")
        assert done.description["labels"] == {"background": 0, "artery": 1, "vein": 2, "both": 3}
        assert done.labels("a") == [[1, 2, 3, 0]]


def test_vessels_that_are_neither_are_what_the_labels_say(run: Run) -> None:
    photos("images/a.png", shape=(1, 3, 3))
    save("masks/a.png", [[(255, 0, 255), (0, 0, 255), (0, 255, 255)]])
    channels = ("-i", "images", "-m", "masks", "--layout", "channels", "--labels", "artery=R", "vein=G")
    done = run(*channels)
    assert done.labels("a") == [[1, 0, 2]]
    assert "pixels with B alone become background" in done.out
    done = run(*channels, "ignore=B", "--overwrite")
    assert done.labels("a") == [[1, 3, 2]]
    assert "crossing" not in done.description["labels"]


# the choice


def test_auto_needs_exactly_one_layout_that_fits(run: Run) -> None:
    photos("d/images/a.png")
    save("d/labels/a.png", painted(y0x0=255))
    write("d/labels/a.txt", "0 0 0 1 0 1 1\n")
    write("d/data.yaml", "names: [disc]\n")
    done = run("-i", "d")
    assert done.code == 2
    assert "d could be pairs or yolo; choose one with --layout" in done.err
    assert run("-i", "d", "--layout", "yolo").code == 0
    Path("empty").mkdir()
    done = run("-i", "empty", "--overwrite")
    assert done.code == 2
    assert "empty has no layout that is known (pairs, ade20k, voc" in done.err
    assert "There is no nowhere" in run("-i", "nowhere", "--overwrite").err
