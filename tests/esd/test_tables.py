"""What the terminal shows of a report."""

import io

import pytest
import torch
from rich.console import Console
from torch import nn

from fpstab.esd import ESDReport, esd_report
from fpstab.esd.tables import fold, printable, report_table, summary_lines


def linear(*shape: int, cauchy: bool = False, seed: int = 0) -> nn.Linear:
    layer = nn.Linear(shape[1], shape[0], bias=False)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.cauchy_(generator=generator) if cauchy else layer.weight.normal_(generator=generator)
    return layer


class Network(nn.Module):
    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


def network(cauchy: bool = True) -> Network:
    broken = linear(30, 30)
    with torch.no_grad():
        broken.weight.fill_(torch.nan)
    return Network(light=linear(100, 60), heavy=linear(120, 150, cauchy=cauchy), few=linear(60, 3), broken=broken)


def shown(report: ESDReport, initial: ESDReport | None = None, width: int = 80) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=width, highlight=False).print(report_table(report, initial, width=width))
    assert "…" not in text.getvalue()
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_a_row_a_layer():
    report = esd_report(network())
    lines = shown(report)
    assert lines[0].split() == ["layer", "shape", "n", "alpha", "±", "sigma", "D", "spikes", "verdict"]
    layer = report["light"]
    assert lines[2].split() == [
        "light", "100×60", "60", f"{layer.alpha:.2f}", "±", f"{layer.sigma:.2f}", f"{layer.ks_distance:.3f}", "0", "light"
    ]  # fmt: skip
    assert lines[3].split()[-1] == "heavy"
    assert lines[4].split() == ["(entries)"]
    assert lines[5].split() == ["few", "60×3", "3", "–", "–", "–", "too_few"]
    assert lines[6].split() == ["broken", "30×30", "0", "–", "–", "–", "not_finite"]


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("initial", [False, True])
def test_it_fits_and_cuts_nothing(width, initial):
    name = "model_layers_21_self_attention_query_projection"
    network = Network(encoder=Network(**{name: linear(130, 120, cauchy=True)}), short=linear(1000, 50))
    report = esd_report(network)
    lines = shown(report, report if initial else None, width)
    assert max(map(len, lines)) <= width
    column = "".join(line[: len("encoder.") + 4].split(" ")[0] for line in lines[2:-1])
    assert f"{report[f'encoder.{name}'].alpha:.2f} ± {report[f'encoder.{name}'].sigma:.2f}" in "\n".join(lines)
    assert "120" in lines[2]
    assert column.startswith("encoder.")


def test_before_and_now():
    now, then = esd_report(network()), esd_report(network(cauchy=False))
    then = ESDReport(then.layers[:-1], then.status)
    lines = "\n".join(shown(now, then))
    assert f"{then['heavy'].alpha:.2f} →" in lines
    assert "light →" in lines
    assert "– →" in lines  # of the layer that was not there


def test_names_are_no_markup_and_steer_no_terminal():
    report = esd_report(Network(**{"[red]a[/]": linear(3, 4), "b\x1b[2J\n": linear(3, 4)}))
    lines = "\n".join(shown(report))
    assert "[red]a[/]" in lines
    assert "\x1b" not in lines
    assert "b�[2J�" in lines
    assert printable("größe α 中") == "größe α 中"


def test_fold():
    assert fold("encoder.layers.0", 20) == "encoder.layers.0"
    assert fold("encoder.layers.0", 15) == "encoder.layers.\n0"
    assert fold("abcdefghij", 4) == "abc\ndef\nghij"
    for width in range(2, 20):
        for name in ("a..b", ".a.", "model.layers.21.self_attn.q_proj", "x" * 40):
            folded = fold(name, width)
            assert folded.replace("\n", "") == name
            assert max(map(len, folded.split("\n"))) <= width


def test_summary():
    report = esd_report(network(), randomize=True)
    counts, means = summary_lines(report)
    assert counts == "4 layers: 1 too_few, 1 light, 1 heavy (entries), 1 failed."
    assert f"alpha {(report['light'].alpha + report['heavy'].alpha) / 2:.4g}," in means
    assert "rand_distance 0." in means
    assert "nan" not in means
    zero = nn.Linear(30, 30)
    nn.init.zeros_(zero.weight)
    assert summary_lines(esd_report(zero)) == ["1 layer: 1 without a spectrum."]
