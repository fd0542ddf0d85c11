"""The page as a person has it: in a browser, with pointer and keys."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vgr_rl.grounding import Size, box_rle
from vgr_rl.report import write_report
from vgr_rl.tiny.world import generate

pytestmark = pytest.mark.slow

_EVIL = "</script><script>document.title='evil'</script><img src=x onerror=alert(1)>\u2028${alert(1)}{{7*7}}<!--"
Visit = Callable[..., Any]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, runs: ModuleType) -> Path:
    return write_report(runs.write_demo(tmp_path_factory.mktemp("demo"), items=40))


@pytest.fixture
def page(demo: Path, visit: Visit) -> Any:
    opened = visit(demo)
    opened.wait_for_selector("#detail .panel img")
    return opened


def labels(page: Any) -> list[str]:
    return [option.get_attribute("aria-label") for option in page.locator("#list .row").all()]


def numbers(page: Any) -> tuple[int, int]:
    """Listed prompts and responses."""
    prompts, responses = page.locator("#count").inner_text().split(", ")
    return int(prompts.split()[0].replace(",", "")), int(responses.split()[0].replace(",", ""))


def test_pictures_load_and_boxes_lie_where_they_should(page: Any) -> None:
    for picture in page.locator("#detail .panel .picture").all():
        assert picture.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
        frame = picture.bounding_box()
        for region in picture.locator("svg .region").all():
            drawn = region.locator(".edge")
            x, width = (float(drawn.get_attribute(name)) for name in ("x", "width"))
            box = drawn.evaluate("edge => { const r = edge.getBoundingClientRect(); return [r.x, r.width]; }")
            assert box[0] == pytest.approx(frame["x"] + x / 64 * frame["width"], abs=3)
            assert box[1] == pytest.approx(width / 64 * frame["width"], abs=6)
    assert page.locator("#detail .panel").count() == 2


def test_a_sentence_lights_its_boxes_and_a_box_its_sentence(page: Any) -> None:
    panel = page.locator("#detail .panel").first
    sentence = panel.locator(".sentence[data-e='0']")
    region = panel.locator(".region[data-e='0']")
    sentence.hover(position={"x": 3, "y": 8})
    assert "on" in region.get_attribute("class").split()
    assert panel.locator("th.on[data-e='0']").count() == 1
    assert panel.locator(".region.truth.on").count() == 0
    page.mouse.move(0, 0)
    assert panel.locator(".on").count() == 0
    region.locator(".tint").hover(force=True)
    assert "on" in sentence.get_attribute("class").split()
    panel.locator("th[data-t='0']").hover()
    assert panel.locator(".region.on").count() == 1 and "truth" in panel.locator(".region.on").get_attribute("class")
    panel.locator("mark").first.focus()
    assert "on" in region.get_attribute("class").split()


def test_a_true_box_shows_on_an_equal_predicted_one(tmp_path: Path, runs: ModuleType, visit: Visit) -> None:
    scene = next(iter(generate("heldout", 1, 0)))
    runs.write_grpo(tmp_path, steps=3, rollouts=[{**runs.row_of(scene, random.Random(0), 0, 1.0), "step": 3}])
    page = visit(write_report(tmp_path))
    page.wait_for_selector("#detail .panel img")
    drawn = page.locator("#detail .panel svg .region")
    kinds = [region.get_attribute("class").split()[1] for region in drawn.all()]
    assert kinds == ["found"] * len(scene.targets) + ["truth"] * len(scene.targets)
    for name in ("edge", "halo"):  # broken lines: what lies below is seen between them
        assert drawn.last.locator(f".{name}").evaluate("line => getComputedStyle(line).strokeDasharray") == "6px, 4px"
    drawn.first.locator(".tint").hover()  # and the pointer meets it
    assert "on" in page.locator("#detail .sentence[data-e='0']").get_attribute("class").split()
    page.locator("#detail .ground").first.dispatch_event("pointerover")
    assert "on" in page.locator("#detail .region.truth").first.get_attribute("class").split()


def test_the_truth_is_hidden_and_shown(page: Any) -> None:
    truth = page.locator("#detail .region.truth").first
    button = page.get_by_role("button", name="Truth")
    assert truth.is_visible()
    button.click()
    assert not truth.is_visible() and button.get_attribute("aria-pressed") == "false"
    page.keyboard.press("t")
    assert truth.is_visible()


def test_filters_search_and_order(page: Any, demo: Path) -> None:
    assert numbers(page) == (40, 80)
    page.locator("#filters").get_by_label("Answer").select_option("became right")
    page.locator("#count", has_text="of 40").wait_for()
    assert all(label.endswith("1 of 2 right") for label in labels(page)) and labels(page)
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Which part").select_option("dual_iou")
    page.get_by_label("Limit").fill("0.2")
    page.locator("#count", has_text="of 40").wait_for()
    rows = [
        json.loads(line)
        for name in ("cold_start", "grpo")
        for line in (demo.parent / "eval" / name / "greedy.jsonl").open()
    ]
    assert numbers(page)[1] == sum(row["parts"]["dual_iou"] <= 0.2 for row in rows)
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Search").fill("HELDOUT-0-7")
    page.locator("#count", has_text="1 prompt of").wait_for()
    assert "tiny-heldout-0-7" in page.locator("#detail .meta").inner_text()
    page.get_by_label("Search").fill("nothing has this")
    page.get_by_text("No sample passes these filters.").wait_for()
    page.get_by_role("button", name="Clear").click()
    page.locator("#filters").get_by_label("Order").select_option("largest gain")
    for _ in range(100):
        gains = [float(label.split("reward ")[1].split(",")[0].replace("−", "-")) for label in labels(page)]
        if gains == sorted(gains, reverse=True):
            break
        page.wait_for_timeout(50)
    assert gains == sorted(gains, reverse=True) and gains[0] > 0
    assert page.locator("#position").inner_text() == "1 / 40"


def test_a_group_stands_side_by_side_with_its_advantages(page: Any, demo: Path) -> None:
    page.get_by_role("button", name="Rollouts").click()
    rows = [json.loads(line) for line in (demo.parent / "grpo" / "samples.jsonl").open()]
    newest = [row for row in rows if row["step"] == 120][-4:]
    cards = page.locator(".strip .rollout")
    assert cards.count() == 4
    for row, card in zip(newest, cards.all(), strict=True):
        shown = f"{row['advantage']:+.2f}".replace("-", "−")
        assert shown.removeprefix("+") in card.locator(".advantage").inner_text()
        assert f"{row['score']:.2f}" in card.inner_text()
    page.locator("#filters").get_by_label("Step").select_option("119")
    page.locator("#count", has_text="3 prompts").wait_for()
    cards.nth(2).click()
    assert page.locator("#detail .panel h4").inner_text().startswith("Rollout 2")
    terms = page.locator("#detail .terms tbody tr")
    earned = [float(term.locator("td").last.inner_text().replace("−", "-")) for term in terms.all()]
    assert len(earned) == 3
    assert sum(earned) == pytest.approx(float(page.locator("#detail .terms tfoot td").inner_text()), abs=0.02)


def test_keys_go_through_prompts_and_rollouts(page: Any) -> None:
    page.get_by_role("button", name="Rollouts").click()
    page.keyboard.press("j")
    assert page.locator("#position").inner_text() == "2 / 6"
    page.keyboard.press("k")
    page.keyboard.press("k")
    assert page.locator("#position").inner_text() == "1 / 6"
    page.keyboard.press("l")
    assert page.locator("#detail .panel h4").inner_text().startswith("Rollout 1")
    page.keyboard.press("h")
    page.keyboard.press("h")
    assert page.locator("#detail .panel h4").inner_text().startswith("Rollout 3")
    page.keyboard.press("/")
    page.keyboard.type("jjj")
    assert page.get_by_label("Search").input_value() == "jjj"
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Clear").click()
    page.locator("#list").focus()
    page.keyboard.press("End")
    assert page.locator("#position").inner_text() == "6 / 6"
    assert (
        page.locator("#" + page.locator("#list").get_attribute("aria-activedescendant")).get_attribute("aria-selected")
        == "true"
    )
    page.keyboard.press("?")
    assert page.locator("#help").evaluate("help => help.open")
    page.get_by_label("Single keys work").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("k")
    assert page.locator("#position").inner_text() == "6 / 6"


def test_text_of_models_stays_text(tmp_path: Path, runs: ModuleType, visit: Visit) -> None:
    runs.write_grpo(tmp_path, steps=3)
    path = tmp_path / "samples.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row |= {
            "response": f"<think>{_EVIL}<box>[1,2,30,40]</box></think><answer>{_EVIL}</answer>",
            "boxes_orig_px": [[1, 2, 30, 40]],
        }
        row |= {"question": _EVIL, "answer": _EVIL, "data_source": _EVIL, "options": [_EVIL], "id": _EVIL}
        row["parts"][_EVIL] = row["terms"][_EVIL] = 1.0
        row["status"] |= {_EVIL: "ok", "judge": "failed"}
        row["reasons"] = {"judge": _EVIL}
    rows[0]["image"] = {"path": _EVIL}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    page = visit(write_report(tmp_path))
    page.wait_for_selector("#detail .panel img")
    for _ in range(6):
        page.keyboard.press("j")
    page.wait_for_selector("#detail .panel .problem")
    assert _EVIL in page.locator("#detail .response").inner_text()
    assert page.title() == f"Run {tmp_path.parent.name}/{tmp_path.name}"
    assert page.locator("#samples script, #samples img[onerror], [onerror]").count() == 0


def test_masks_are_drawn_pixel_by_pixel(tmp_path: Path, runs: ModuleType, visit: Visit) -> None:
    runs.write_grpo(tmp_path, steps=3)
    scene, size = next(iter(generate("heldout", 1, 0))), Size(64, 64)
    row = runs.row_of(scene, random.Random(0), 0, 1.0, "<think>Here [SEG].</think><answer>A</answer>")
    target = box_rle((8, 4, 40, 36), size)
    row |= {"pred_masks": [box_rle((10, 20, 50, 52), size)], "targets": [{"mask": target, "name": "thing"}], "step": 3}
    (tmp_path / "samples.jsonl").write_text(json.dumps(row) + "\n")
    page = visit(write_report(tmp_path))
    page.wait_for_selector("#detail .panel img")
    region = page.locator("#detail .region.found")
    inside = """(region, [x, y]) => {
      const fill = region.querySelector(".tint"), point = new DOMPoint(x, y);
      return fill.isPointInFill(point);
    }"""
    for x, y, expected in (
        (10.5, 20.5, True),
        (49.5, 51.5, True),
        (9.5, 20.5, False),
        (10.5, 19.5, False),
        (50.5, 30, False),
    ):
        assert region.evaluate(inside, [x, y]) is expected
    box = region.locator(".edge").evaluate(
        "edge => { const b = edge.getBBox(); return [b.x, b.y, b.width, b.height]; }"
    )
    assert box == [10, 20, 40, 32]
    page.locator("#detail mark").hover()
    assert "on" in region.get_attribute("class").split()
    assert page.locator("#detail .ious td[data-e]").inner_text() == "0.26"
    assert "thing" in page.locator("#detail .ious thead").inner_text()


@pytest.mark.parametrize("width", [380, 768])
def test_a_narrow_screen_scrolls_in_one_direction(demo: Path, visit: Visit, width: int) -> None:
    page = visit(demo, width=width)
    page.wait_for_selector("#detail .panel img")
    for name in ("Greedy", "Rollouts"):
        page.get_by_role("button", name=name).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator(".strip .rollout").nth(1).click()
    assert page.locator("#detail .panel h4").inner_text().startswith("Rollout 1")


def test_every_control_has_a_name_and_focus_goes_in_reading_order(page: Any) -> None:
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    controls = {
        "button",
        "combobox",
        "textbox",
        "searchbox",
        "spinbutton",
        "listbox",
        "option",
        "image",
        "link",
        "checkbox",
        "article",
    }
    seen = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]]
    found = [(role, name) for role, name in seen if role in controls]
    assert len(found) > 40 and [role for role, name in found if not name.strip()] == []
    page.get_by_label("Search").focus()
    order = []
    for _ in range(12):
        page.keyboard.press("Tab")
        order.append(page.evaluate("(({ name, id, tagName }) => name || id || tagName)(document.activeElement)"))
    wanted = [
        "outcome",
        "measure",
        "bound",
        "limit",
        "order",
        "BUTTON",
        "list",
        "previous",
        "next",
        "truth",
        "show-help",
        "MARK",
    ]
    assert order == wanted
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_told_from_its_background(demo: Path, visit: Visit, scheme: str) -> None:
    page = visit(demo, color_scheme=scheme)
    page.get_by_role("button", name="Rollouts").click()
    page.wait_for_selector("#detail .panel img")
    poor = page.evaluate(_CONTRASTS)
    assert [text for text in poor if text["contrast"] < 4.5] == []


def test_nothing_moves_for_who_asks_for_that(demo: Path, visit: Visit) -> None:
    page = visit(demo, reduced_motion="reduce")
    page.wait_for_selector("#detail .panel img")
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    assert page.locator(".region").first.evaluate("region => getComputedStyle(region).transitionDuration") == "0s"


_CONTRASTS = """() => {
  const channels = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return text.startsWith("color(srgb") ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
  };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
  const behind = (element) => {
    if (!element) return [255, 255, 255, 1];
    const own = channels(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own : over(own, behind(element.parentElement));
  };
  const light = (colour) => colour.slice(0, 3).map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest("svg, script")) continue;
    const ground = behind(element), ink = over(channels(getComputedStyle(element).color), ground);
    const [low, high] = [light(ground), light(ink)].sort((one, other) => one - other);
    found.push({ text: walker.currentNode.data.slice(0, 40), contrast: (high + 0.05) / (low + 0.05) });
  }
  return found;
}"""
