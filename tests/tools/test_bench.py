"""`tfn bench`: the worker's protocol, what is concluded from samples, and one tiny run of it all."""

import ctypes
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tfn.compiler.errors import TfnError
from tfn.compiler.runtime import peaks
from tfn.tools.bench import command, measure, peer, plot, report
from tfn.tools.bench.worker.catalog import WORKLOADS
from tfn.tools.bench.worker.frameworks import FRAMEWORKS, NumPy
from tfn.tools.bench.worker.keras_models import seeded_weights
from tfn.tools.bench.worker.workload import Unsupported, normal, statistics_of

TINY = "overhead/call-4-buffers"


@pytest.fixture(scope="module")
def limits():
    return peaks.Peaks(1, 256, 1e11, {"l1": 5e10, "l2": 1e10, "l3": 1e10, "memory": 1e10},
                       {"l1": 4e10, "l2": 3e10, "l3": 2e10, "memory": 1e10})


@pytest.fixture
def start(tmp_path):
    """`start("numpy")`: a running worker of a framework, in this Python unless said otherwise."""
    started = []

    def begin(name, python=sys.executable):
        one = peer.Peer(peer.PeerSpec(name, python), 1,
                        peer.environment(1, tmp_path, {"PATH": "/usr/bin:/bin", "HOME": "/tmp"}))
        started.append(one)
        one.start()
        return one

    yield begin
    for one in started:
        one.stop()


# -- the command -----------------------------------------------------------------------------------

def test_one_run_from_the_command_line(cli, tmp_path, monkeypatch, limits):
    """tfn and NumPy, in processes of their own: JSON, page and table of the same figures."""
    monkeypatch.setattr(command, "measure_peaks", lambda threads: limits)
    monkeypatch.setattr(measure, "SAMPLE_SECONDS", 1e-3)
    found = cli("bench", TINY, "--peer", "numpy", "--repeat", 3, "--json", tmp_path / "run.json",
                "--plot", tmp_path / "run.html")
    assert found.code == 0, found.err
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["format"] == report.FORMAT
    assert [p["name"] for p in run["peers"]] == ["tfn", "numpy"]
    assert run["peers"][1]["versions"]["numpy"] == np.__version__
    assert run["settings"] == {"threads": 1, "rounds": 3, "clock": "wall"}
    outcome, = run["workloads"]
    assert outcome["name"] == TINY
    for one in outcome["peers"].values():
        assert one["status"] == "ok", one
        assert one["alive"] and one["agrees"]
        assert len(one["wall"]) == len(one["cpu"]) == 3
        assert min(one["wall"]) > 0 and one["first_step_seconds"] > 0
    assert outcome["best_peer"] == "numpy"
    medians = {n: np.median(m["wall"]) for n, m in outcome["peers"].items()}
    assert outcome["ratio"] == pytest.approx(medians["numpy"] / medians["tfn"])
    assert run["geometric_mean"]["all"] == pytest.approx(outcome["ratio"])
    assert found.out.count(TINY) == 2 and "first step" in found.out
    page = (tmp_path / "run.html").read_text()
    assert TINY in page and "<svg" in page


def test_names_are_listed_by_family_and_pattern(cli):
    assert cli("bench", "--list", "overhead").out.split() == [
        n for n in WORKLOADS if n.startswith("overhead/")]
    assert cli("bench", "--list", "gemm/f32/*12x*").out.split() == [
        "gemm/f32/512x512x512", "gemm/f32/32x512x784", "gemm/f32/512x3072x768"]


def test_an_unknown_name_is_the_users_mistake(cli):
    cli("bench", "conw").mistake("no workload 'conw'", "families are", "conv", "--list")


@pytest.mark.parametrize("text, parts", [
    ("theano", ("no framework 'theano'", "jax")),
    ("jax=/nowhere/python", ("/nowhere/python is no program", "bin/python")),
])
def test_a_peer_that_cannot_be_is_refused(cli, text, parts):
    cli("bench", TINY, "--peer", text).mistake(*parts)


def test_a_peer_is_given_once(cli):
    cli("bench", TINY, "--peer", "numpy", "--peer", "numpy").mistake("numpy is given twice")


def test_no_folder_for_results(cli):
    cli("bench", TINY, "--json", "nowhere/x.json").mistake("no folder nowhere")


# -- workers ---------------------------------------------------------------------------------------

def test_a_worker_runs_a_workload(start):
    worker = start("numpy")
    assert worker.ask("open", workload="gemm/f32/128x128x128")["style"] == "numpy"
    assert worker.ask("steps", count=2)["wall"] > 0
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((128, 128), np.float32) for _ in range(2))
    assert worker.ask("evidence")["evidence"] == pytest.approx(statistics_of([a @ b]))
    assert worker.ask("alive") == {"alive": True}


def test_a_digest_is_of_the_results_bits(start):
    worker, digests = start("numpy"), set()
    for name in ("gemm/f32/128x128x128", "gemm/f32/256x256x256"):
        worker.ask("open", workload=name)
        worker.ask("steps", count=1)
        found = worker.ask("digest")
        assert found == worker.ask("digest") and found["any_position"] is None
        digests.add(found["digest"])
    assert len(digests) == 2


def test_an_idle_worker_is_frozen(start):
    worker = start("numpy")
    state = Path(f"/proc/{worker._process.pid}/stat")
    if not state.exists():
        pytest.skip("needs /proc")
    # The signal is sent; the kernel delivers it when the process next runs.
    ends = time.monotonic() + 30
    while state.read_text().rsplit(")", 1)[1].split()[0] != "T":
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_a_refusal_and_a_defect_are_told_apart(start):
    worker = start("numpy")
    with pytest.raises(peer.PeerFailed, match="no numpy version") as refused:
        worker.ask("open", workload="gemm/bf16/256x256x256")
    assert refused.value.unsupported
    with pytest.raises(peer.PeerFailed, match="KeyError") as failed:
        worker.ask("open", workload="no such workload")
    assert not failed.value.unsupported


def test_a_dead_worker_is_reported(start):
    worker = start("numpy")
    worker._process.kill()
    with pytest.raises(peer.PeerFailed, match="SIGKILL"):
        worker.ask("close")
    with pytest.raises(peer.PeerFailed, match="has ended"):
        worker.ask("close")


def test_a_peer_without_its_framework_is_reported(start, limits):
    """Here there is no TensorFlow: the run goes on without it, and says why."""
    with pytest.raises(peer.PeerFailed, match="No module named 'tensorflow'"):
        start("tensorflow")
    broken = peer.Peer(peer.PeerSpec("tensorflow", sys.executable), 1, {"PATH": "/usr/bin"})
    outcome = measure.measure(WORKLOADS[TINY], [start("numpy"), broken], 1, "wall", limits)
    assert outcome.peers["numpy"].status == "ok"
    assert outcome.peers["tensorflow"].status == "failed"
    assert "tensorflow" in outcome.peers["tensorflow"].reason
    assert outcome.ratio is None
    assert any("tensorflow: failed" in line for line in report.notes([outcome]))


def test_workers_differ_in_nothing_but_the_framework(tmp_path):
    env = peer.environment(2, tmp_path, {"OPENBLAS_CORETYPE": "Haswell", "LANG": "C"})
    assert "OPENBLAS_CORETYPE" not in env and env["LANG"] == "C"
    assert {env[name] for name in peer.THREAD_VARIABLES} == {"2"}
    assert env["TFN_CACHE_DIR"] == str(tmp_path)


# -- conclusions -----------------------------------------------------------------------------------

def outcome_of(limits, **walls):
    found = {name: measure.Measured(wall=w, cpu=w, evidence=[1.0], alive=True)
             for name, w in walls.items()}
    workload = WORKLOADS["gemm/f32/128x128x128"]
    outcome = measure.Outcome(workload.name, workload.family, workload.flops, workload.nbytes, found)
    measure._judge(outcome, workload, "wall", limits)
    return outcome


def test_ratios_are_taken_within_a_round(limits):
    """A slow round slows everybody, and says nothing."""
    outcome = outcome_of(limits, tfn=[1.0, 10.0, 2.0], jax=[2.0, 20.0, 4.0], torch=[3.0, 30.0, 6.0])
    assert (outcome.best_peer, outcome.ratio) == ("jax", 2.0)
    assert outcome.ratio_quartiles == (2.0, 2.0)
    assert outcome.ratios == {"jax": 2.0, "torch": 3.0}


def test_the_fraction_of_the_peak_is_that_of_the_nearer_limit(limits):
    outcome = outcome_of(limits, tfn=[1e-3])
    measured = outcome.peers["tfn"]
    assert measured.flops_per_second == pytest.approx(2 * 128**3 / 1e-3)
    assert measured.fraction_of_peak == pytest.approx(2 * 128**3 / 1e11 / 1e-3)
    assert limits.least_seconds(0.0, 1e9) == pytest.approx(0.1)
    assert limits.least_seconds(0.0, 8192.0) == pytest.approx(8192 / 5e10)


def test_peaks_are_the_better_of_two_measurements(limits):
    lower = peaks.Peaks(1, 256, 2e11, dict.fromkeys(limits.read_bytes, 0.0),
                        dict.fromkeys(limits.copy_bytes, 0.0))
    best = lower.better(limits)
    assert best.f32_flops == 2e11 and best.copy_bytes == limits.copy_bytes
    outcome = outcome_of(limits, tfn=[1e-3])
    measure.set_fractions(outcome, "wall", best)
    assert outcome.peers["tfn"].fraction_of_peak == pytest.approx(2 * 128**3 / 2e11 / 1e-3)


def test_other_work_is_noticed(limits):
    good = {name: measure.Measured(evidence=e) for name, e in
            {"tfn": [1.0, 2.0], "jax": [1.0, 2.001], "torch": [1.0, 3.0]}.items()}
    measure._compare_evidence(good, 1e-2, False)
    assert {n: m.agrees for n, m in good.items()} == {"tfn": True, "jax": True, "torch": False}
    losses = {"tfn": measure.Measured(evidence=[2.0, 1.0]), "jax": measure.Measured(
        evidence=[2.0, 1.0, 0.5])}
    measure._compare_evidence(losses, 1e-2, True)
    assert losses["tfn"].agrees and losses["jax"].agrees
    assert not measure.close([1.0], [1.0, 1.0], 1.0)
    assert not measure.close([math.nan], [1.0], 1.0)


def test_losses_are_compared_with_the_nearest_peer(limits):
    """Per step, relative to the loss; the spread among peers says how near is near."""
    losses = {"tfn": [2.0, 1.0, 0.5], "jax": [2.0, 1.01, 0.5], "torch": [2.02, 1.0, 0.25]}
    outcome = outcome_of(limits, **{name: [1.0] for name in losses})
    assert measure.drift(outcome) is None, "a kernel has no trajectory"
    outcome.trajectory = True
    for name, one in outcome.peers.items():
        one.evidence = losses[name]
    found = measure.drift(outcome)
    assert (found.steps, found.first, found.nearest) == (3, 0.0, "jax")
    assert found.ours == pytest.approx(0.01 / 1.01)
    assert found.peers == pytest.approx(0.5)
    outcome.peers["torch"].status = "failed"
    assert measure.drift(outcome).peers is None
    assert "mlp" not in str(report.drift_table([])) and report.drift_table([outcome]).row_count == 1


def test_the_mean_of_ratios_is_geometric(limits):
    outcomes = [outcome_of(limits, tfn=[1.0], jax=[4.0]), outcome_of(limits, tfn=[1.0], jax=[1.0]),
                outcome_of(limits, tfn=[1.0])]
    assert measure.geometric_mean(outcomes) == pytest.approx(2.0)
    assert measure.geometric_mean(outcomes[2:]) is None


def test_a_plot_shows_both_directions(limits, tmp_path):
    outcomes = [outcome_of(limits, tfn=[1.0], jax=[4.0]), outcome_of(limits, tfn=[3.0], jax=[1.0])]
    plot.write_plot(report.Report("now", 1, 1, "wall", limits, [{"name": "tfn"}, {"name": "jax"}],
                                  outcomes), tmp_path / "x.html")
    page = (tmp_path / "x.html").read_text()
    assert page.count(plot.FASTER) == page.count(plot.SLOWER) == 1


# -- workloads -------------------------------------------------------------------------------------

def test_every_workload_can_run_on_tfn_and_says_what_it_costs():
    styles = set(FRAMEWORKS["tfn"].styles)
    for name, workload in WORKLOADS.items():
        assert styles & set(workload.programs), name
        assert workload.flops or workload.nbytes or workload.family == "overhead", name


# One of each kind of program that tfn and JAX share, of the smaller sizes.
SHARED = """gemm/f32-At/784x512x32 gemm/f32-batch/96x128x128x64 gemm/int8/256x256x256
 gemm/bf16/256x256x256 conv/forward/n1/14x14x256-256-3x3s1 conv/dX/n1/56x56x256-512-1x1s2
 conv/dW/n1/7x7x512-512-3x3s1 conv/depthwise/n1/14x14x512-3x3 rows/softmax/1024x1024
 rows/layernorm-gradient/1365x768 rows/cross-entropy-gradient/512x10000 elementwise/gelu-erf/1M
 elementwise/log1p/1M elementwise/adam/1M order/top-10/1x1048576
 order/cumsum/4096x4096-rows pool/mean-gradient/n32/28x28x32-3x3s2 place/cast/float32-int8
 place/embedding-gradient/30522x768-8192 place/random-bits/threefry-4M reduction/max/2048x2048
overhead/scan-1000-steps""".split()


@pytest.mark.outside("jax")
def test_tfn_and_jax_do_the_same_work(start, jax_python):
    """The figures by which a run says so agree on every kind of program."""
    found = {}
    for name, python in (("tfn", sys.executable), ("jax", jax_python)):
        worker = start(name, python)
        for workload in SHARED:
            worker.ask("open", workload=workload)
            worker.ask("steps", count=1)
            found.setdefault(workload, []).append(worker.ask("evidence")["evidence"])
    for workload, (ours, theirs) in found.items():
        assert np.isfinite(ours).all(), workload
        assert measure.close(ours, theirs, WORKLOADS[workload].tolerance), (workload, ours, theirs)


def test_training_starts_from_the_named_weights(start):
    """The first loss of the MLP, computed with NumPy from the weights and the batch."""
    worker = start("tfn")
    worker.ask("open", workload="train/mlp/n128")
    worker.ask("steps", count=2)
    losses = worker.ask("evidence")["evidence"]
    (x,), labels = WORKLOADS["train/mlp/n128"].programs["keras"].batch()
    for name, width in (("hidden1", 512), ("hidden2", 512), ("logits", 10)):
        x = x @ seeded_weights(f"model/{name}/kernel", (x.shape[1], width))
        x = np.maximum(x, 0) if name != "logits" else x
    log_sums = np.log(np.exp(x.astype(np.float64)).sum(1))
    assert losses[0] == pytest.approx((log_sums - x[np.arange(128), labels]).mean(), rel=1e-4)
    assert losses[1] < losses[0] and worker.ask("alive") == {"alive": True}


def test_weights_follow_their_names():
    kernel = seeded_weights("block/kernel", (3, 3, 64, 32))
    assert kernel.std() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.05)
    assert (kernel == seeded_weights("block/kernel", (3, 3, 64, 32))).all()
    assert (kernel != seeded_weights("other/kernel", (3, 3, 64, 32))).any()
    assert (seeded_weights("norm/gamma", (4,)) == 1).all()
    assert not seeded_weights("norm/moving_mean", (4,)).any()


def test_a_framework_without_a_program_is_unsupported():
    with pytest.raises(Unsupported, match="no numpy version"):
        WORKLOADS["elementwise/adam/1M"].style_for(NumPy(1))


def test_inputs_are_the_same_in_every_process():
    spec = normal(3, 4, scale=2.0)
    first, second = (spec.draw(np.random.default_rng(5)) for _ in range(2))
    assert first.dtype == np.float32 and (first == second).all()


def test_the_peaks_are_those_of_this_machine(monkeypatch):
    """The loops compute and move what they say: their results are checked, their times are not."""
    monkeypatch.setattr(peaks, "TRIES", 1)
    lanes = 4
    out = np.full(peaks.CHAINS * lanes, 0.5, np.float32)
    fma = peaks._function("tfn_peak_fma", lanes, (ctypes.c_int64, ctypes.c_void_p))
    fma(10, out.ctypes.data)
    assert (out == 10 * 0.25).all()
    source, target = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    pointers = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    peaks._function("tfn_peak_copy", lanes, pointers)(
        source.ctypes.data, target.ctypes.data, 64, 2)
    assert (target == source).all()
    sums = np.zeros(peaks.READ_UNROLL * lanes, np.float32)
    arguments = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
    peaks._function("tfn_peak_read", lanes, arguments)(source.ctypes.data, 64, 3, sums.ctypes.data)
    assert sums.sum() == 3 * source.sum()


def test_a_parsed_peer_is_a_name_and_a_program():
    spec = peer.PeerSpec.parse(f"numpy={sys.executable}", "", ["numpy"])
    assert spec == peer.PeerSpec("numpy", sys.executable)
    with pytest.raises(TfnError, match="no framework"):
        peer.PeerSpec.parse("x", "", ["numpy"])
