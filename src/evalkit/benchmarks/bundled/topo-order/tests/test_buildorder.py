import unittest

from buildorder import CycleError, build_order, parse


class Counted(tuple):
    """Dependencies that may be looked through a few times, not thousands of times."""

    looked_through = 0

    def __iter__(self):
        Counted.looked_through += 1
        if Counted.looked_through > 1000:
            raise AssertionError("the same part of the graph is walked again and again")
        return super().__iter__()


def ladder(rungs):
    """Layers of two modules, each of which needs both modules of the layer below."""
    graph = {}
    for layer in range(rungs):
        below = Counted((f"a{layer - 1}", f"b{layer - 1}")) if layer else Counted()
        graph[f"a{layer}"] = graph[f"b{layer}"] = below
    return dict(reversed(list(graph.items())))


def chain(length):
    return {f"t{i}": (f"t{i + 1}",) for i in range(length)}


class OrderTest(unittest.TestCase):
    def test_dependencies_come_first_in_their_order(self):
        graph = parse("app: gui core\ngui: core theme\ncore: net\ntools: net app")
        self.assertEqual(build_order(graph), ["net", "core", "theme", "gui", "app", "tools"])

    def test_order_of_the_targets_given(self):
        graph = parse("a: x\nb: y\nc: x y")
        self.assertEqual(build_order(graph, ["c", "a"]), ["x", "y", "c", "a"])
        self.assertEqual(build_order(graph, ["b", "a", "b"]), ["y", "b", "x", "a"])

    def test_sources_are_listed(self):
        self.assertEqual(build_order({"app": ("main.c",)}), ["main.c", "app"])
        self.assertEqual(build_order({}, ["readme"]), ["readme"])

    def test_early_dependency_needs_a_later_one(self):
        self.assertEqual(build_order(parse("app: b a\nb: a\na: c")), ["c", "a", "b", "app"])

    def test_graph_is_not_changed(self):
        graph = parse("a: b c\nb: c")
        before = dict(graph)
        build_order(graph)
        self.assertEqual(graph, before)


class SizeTest(unittest.TestCase):
    def setUp(self):
        Counted.looked_through = 0

    def test_shared_layers(self):
        order = build_order(ladder(60))
        self.assertEqual(len(order), 120)
        self.assertEqual(order[:2], ["a0", "b0"])

    def test_long_chain(self):
        self.assertEqual(build_order(chain(20000)), [f"t{i}" for i in range(20000, -1, -1)])

    def test_long_cycle(self):
        graph = chain(5000)
        graph["t5000"] = ("t3",)
        with self.assertRaises(CycleError) as caught:
            build_order(graph)
        self.assertEqual(caught.exception.cycle, [f"t{i}" for i in range(3, 5001)] + ["t3"])


class CycleTest(unittest.TestCase):
    def cycle(self, text, targets=None):
        with self.assertRaises(CycleError) as caught:
            build_order(parse(text), targets)
        self.assertEqual(str(caught.exception), " -> ".join(caught.exception.cycle))
        return str(caught.exception)

    def test_way_to_the_cycle_is_no_part_of_it(self):
        self.assertEqual(
            self.cycle("app: gui\ngui: core\ncore: net\nnet: log\nlog: core"), "core -> net -> log -> core"
        )

    def test_side_branches_are_no_part_of_it(self):
        self.assertEqual(self.cycle("app: x a\nx: y\na: x b y\nb: y c\nc: x a"), "a -> b -> c -> a")

    def test_self_dependency(self):
        self.assertEqual(self.cycle("app: lib\nlib: lib"), "lib -> lib")

    def test_starts_with_what_was_reached_first(self):
        self.assertEqual(self.cycle("a: b\nb: c\nc: a", ["b"]), "b -> c -> a -> b")

    def test_after_finished_targets(self):
        self.assertEqual(self.cycle("ok: base\nx: ok y\ny: base x"), "x -> y -> x")

    def test_cycle_that_is_not_needed(self):
        graph = parse("app: core\nx: y\ny: x")
        self.assertEqual(build_order(graph, ["app"]), ["core", "app"])
