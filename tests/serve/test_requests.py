"""Requests of programs: what is answered, and what is refused with which code."""

import gzip
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from dslo_jax import scenes
from dslo_jax.serve.studio import SCENE_SIZE

from .clients import assert_safe, png


@pytest.fixture(scope="module")
def result(client):
    return client.result(words="sky, sea|ocean, house", threshold=0.4)


def test_the_page_and_its_files_are_served_under_a_strict_policy(client):
    for path, kind in (("/", "text/html"), ("/page/main.js", "text/javascript")):
        headers, content = client.get(path)
        assert_safe(headers)
        assert headers["content-type"].startswith(kind)
        assert b"http://" not in content.replace(b"http://www.w3.org", b"")
    for path in (
        "/page/../app.py",
        "/page/%2e%2e/app.py",
        "/page/",
        "/r",
        "/x",
        "/../",
    ):
        assert client.error("GET", path) == (404, "V07")


def test_a_result_is_that_of_the_segmenter(client, server, result):
    segmenter = server.page.studio.segmenter
    photo = scenes.draw_scene(9, size=SCENE_SIZE).pixels
    expected = segmenter(photo, ["sky", ["sea", "ocean"], "house"], threshold=0.4)
    path = f"/api/results/{result['result']}"
    _, labels = client.get(f"{path}/labels")
    found = np.frombuffer(gzip.decompress(labels), np.uint8).reshape(SCENE_SIZE)
    np.testing.assert_array_equal(found, expected.labels)
    _, maps = client.get(f"{path}/maps")
    found = np.frombuffer(gzip.decompress(maps), "<f4").reshape(3, 32, 32)
    np.testing.assert_allclose(found, expected.discrepancy, atol=1e-6)
    assert [each["name"] for each in result["classes"]] == ["sky", "sea", "house"]
    assert result["classes"][1]["area"] == pytest.approx(expected.reports[1].area)
    assert json.loads(client.get(path)[1]) == result
    headers, content = client.get(f"{path}/files")
    assert headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = expected.files()
        assert set(archive.namelist()) == set(files)
        assert archive.read("labels.png") == files["labels.png"]
        assert archive.read("overlay.jpg") == files["overlay.jpg"]
        facts = json.loads(archive.read("segmentation.json"))
    assert facts["config"]["threshold"] == 0.4
    assert facts["model"]["clip"]["name"] == "clip"  # and not the folder it is in


def test_a_photo_is_read_within_limits(client):
    status, _, content = client.ask("POST", "/api/photos", png(60, 90))
    facts = json.loads(content)
    assert (status, facts["height"], facts["width"]) == (200, 60, 90)
    headers, picture = client.get(f"/api/photos/{facts['photo']}")
    assert headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(picture)).size == (90, 60)
    assert client.result(facts["photo"])["height"] == 60
    for body, error in (
        (b"", (400, "I02")),
        (b"GIF89a", (400, "I03")),
        (png(60, 90)[:200], (400, "I03")),
        (b"<html>", (400, "I02")),
        (png(1, 5), (400, "I05")),
        (png(800, 700), (413, "I04")),
        (bytes(2**20 + 1), (413, "V03")),
    ):
        assert client.error("POST", "/api/photos", body) == error


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ("{", (400, "V02")),
        ("[]", (400, "V02")),
        ("null", (400, "V02")),
        ('{"photo": 3}', (400, "V02")),
        ('{"photo": "scene-9", "words": "sky", "file": "/etc/passwd"}', (400, "V02")),
        ('{"photo": "scene-9", "words": NaN}', (400, "V02")),
        ("[" * 20000, (400, "V02")),
        (" " * 40000, (413, "V03")),
        ('{"photo": "/etc/passwd", "words": "sky"}', (410, "V06")),
        ('{"photo": "http://localhost/x.png", "words": "sky"}', (410, "V06")),
        ('{"photo": "scene-9", "words": ""}', (400, "C01")),
        ('{"photo": "scene-9", "words": "sky; sea"}', (400, "C10")),
        ('{"photo": "scene-9", "words": "sky, sky"}', (400, "C02")),
        ('{"photo": "scene-9", "words": "a\\u0000b"}', (400, "C06")),
        (json.dumps({"photo": "scene-9", "words": "x" * 81}), (400, "V03")),
        (json.dumps({"photo": "scene-9", "words": "x," * 2001}), (400, "V03")),
        (
            json.dumps(
                {"photo": "scene-9", "words": ",".join(map("a{}".format, range(65)))}
            ),
            (400, "C09"),
        ),
    ],
    ids=str,
)
def test_a_bad_request_is_refused(client, asked, error):
    status = {"V03": (400, 413)}
    found = client.error("POST", "/api/segment", asked)
    assert found[1] == error[1]
    assert found[0] in status.get(error[1], (error[0],))


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"threshold": -1}, "O01"),
        ({"threshold": 0}, "O01"),
        ({"threshold": "0.3"}, "O03"),
        ({"threshold": True}, "O03"),
        ({"threshold": [0.3]}, "O03"),
        ({"threshold": None}, "O03"),
        ({"epsilon": 1e308}, "O01"),
        ({"mode": "magic"}, "O03"),
        ({"mode": 1}, "O03"),
        ({"templates": "my {}"}, "O03"),
        ({"affinity_size": 65536}, "O02"),
        ({"velocity_steps": 10**9}, "O02"),
        ({"clip": "/etc/passwd"}, "O02"),
        ({"timestep": 1.5}, "O03"),
        ([], "V02"),
    ],
    ids=str,
)
def test_a_bad_option_is_refused(client, options, code):
    asked = {"photo": "scene-9", "words": "sky", "options": options}
    assert client.error("POST", "/api/segment", json.dumps(asked)) == (400, code)


def test_a_click_is_answered_or_refused(client):
    asked = {"photo": "scene-9", "x": 10, "y": 20}
    _, _, content = client.ask("POST", "/api/click", json.dumps(asked))
    found = json.loads(content.splitlines()[-1])["result"]
    assert (found["grid"], len(found["map"]), max(found["map"])) == ([32, 32], 1024, 1)
    for more, error in (
        ({"x": "10"}, (400, "V02")),
        ({"x": 1.5}, (400, "V02")),
        ({"x": True}, (400, "V02")),
        ({"z": 1}, (400, "V02")),
        ({"threshold": 7}, (400, "O01")),
        ({"photo": "gone"}, (410, "V06")),
        ({"photo": ["scene-9"]}, (400, "V02")),
    ):
        body = json.dumps(asked | more)
        assert client.error("POST", "/api/click", body) == error
    body = json.dumps(asked | {"x": 10**30})
    _, _, content = client.ask("POST", "/api/click", body)
    assert json.loads(content.splitlines()[-1])["error"]["code"] == "O01"


def test_results_and_photos_expire(client, server):
    first = client.result(words="sky")
    for _ in range(server.limits.results):
        client.result(words="sky")
    path = f"/api/results/{first['result']}"
    for part in ("", "/labels", "/maps", "/photo", "/files"):
        assert client.error("GET", path + part) == (410, "V06")
    photos = [
        json.loads(client.ask("POST", "/api/photos", png(40, 40 + each))[2])["photo"]
        for each in range(server.limits.photos + 1)
    ]
    asked = json.dumps({"photo": photos[0], "words": "sky"})
    assert client.error("POST", "/api/segment", asked) == (410, "V06")
    assert client.error("GET", f"/api/photos/{photos[0]}") == (410, "V06")
    assert client.result(photos[-1])["width"] == 40 + server.limits.photos


def test_drafts_displace_no_result(client, server):
    kept = client.result(words="sky")["result"]
    for _ in range(server.limits.results + 1):
        client.result(words="sky", draft=True)
    client.get(f"/api/results/{kept}")


def test_a_photo_comes_back_with_its_result(client, server):
    photo = json.loads(client.ask("POST", "/api/photos", png(40, 60))[2])["photo"]
    client.result(photo)
    for each in range(server.limits.photos):
        client.ask("POST", "/api/scenes/" + str(each), b"")
    assert client.result(photo, words="house")["width"] == 60


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "localhost@evil.example"},
        {"host": ""},
        {"host": "192.168.1.2"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
    ids=str,
)
def test_other_sites_are_refused(client, headers):
    asked = json.dumps({"photo": "scene-9", "words": "sky"})
    assert client.error("POST", "/api/segment", asked, headers) == (403, "V01")


def test_our_own_page_may_ask_under_each_of_its_names(client):
    port = client.host.rpartition(":")[2]
    for name in ("localhost", "127.0.0.1", "[::1]", "LocalHost"):
        host = f"{name}:{port}"
        headers = {"host": host, "origin": f"http://{host}"}
        client.ask(
            "POST", "/api/scenes/1", b"", headers | {"sec-fetch-site": "same-origin"}
        )


def test_what_forms_of_other_sites_can_send_is_refused(client):
    kinds = "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"
    for kind in kinds:
        found = client.error("POST", "/api/photos", b"x", {"content-type": kind})
        assert found == (400, "V02")
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
        assert client.error(method, "/api/photos") == (404, "V07")
