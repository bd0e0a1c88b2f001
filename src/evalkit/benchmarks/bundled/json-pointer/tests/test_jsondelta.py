import copy
import itertools
import json
import unittest

from jsondelta import PatchError, PointerError, apply, diff, get

RFC = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, 'k"l': 6, " ": 7, "m~n": 8}

DOCUMENTS = [
    None, True, False, 0, 1, "", "1", [], {}, [[]], [1], [True], [1, 2, 3, 4], [4, 3], [1, [2, {"a": 3}]],
    {"a": 1}, {"a": True}, {"a/b": 1, "a~b": 2}, {"~1": 1, "/": 2, "~01": 3, "~": 4}, {"~1": 5, "/": 6, "": 7},
    {"0": "zero", "-": "dash"}, {"list": ["a", "b", "c"]}, {"list": ["c"]}, {"list": {"0": "a"}},
    {"a": {"b": {"c": None}}}, {"a": {"b": {}}},
]  # fmt: skip


class PointerTest(unittest.TestCase):
    def test_examples_of_the_standard(self):
        for pointer, value in (
            ("", RFC), ("/foo", ["bar", "baz"]), ("/foo/0", "bar"), ("/", 0), ("/a~1b", 1), ("/c%d", 2),
            ("/e^f", 3), ("/g|h", 4), ("/i\\j", 5), ('/k"l', 6), ("/ ", 7), ("/m~0n", 8),
        ):  # fmt: skip
            self.assertEqual(get(RFC, pointer), value, pointer)

    def test_escapes_are_read_once(self):
        document = {"~1": 1, "/": 2, "~0": 3, "~": 4, "~01": 5}
        pointers = {"/~01": 1, "/~1": 2, "/~00": 3, "/~0": 4, "/~001": 5}
        self.assertEqual({pointer: get(document, pointer) for pointer in pointers}, pointers)

    def test_malformed(self):
        document = {"a": 1, "~": 2, "~2": 3, "a~": 4}
        for pointer in ("a", "/~", "/~2", "/a~", "/~~0", " /a"):
            with self.assertRaises(PointerError, msg=pointer):
                get(document, pointer)

    def test_what_is_no_index(self):
        for key in (
            "-1",
            "01",
            "00",
            "+1",
            " 1",
            "1 ",
            "1_0",
            "1.0",
            "0x1",
            "",
            "a",
            "\u0661",
            "\u00b2",
            "1\n",
            "-",
            "2",
            "99",
        ):
            with self.assertRaises(PointerError, msg=key):
                get(list("ab"), "/" + key)

    def test_way_leads_nowhere(self):
        for pointer in ("/b", "/a/b", "/a/0", "/s/0"):
            with self.assertRaises(PointerError, msg=pointer):
                get({"a": 1, "s": "text"}, pointer)


class ApplyTest(unittest.TestCase):
    def check(self, document, operation, expected):
        given = copy.deepcopy(document)
        self.assertEqual(apply(document, [operation]), expected)
        self.assertEqual(document, given)

    def refuse(self, error, document, *operations):
        given = copy.deepcopy(document)
        with self.assertRaises(error):
            apply(document, list(operations))
        self.assertEqual(document, given)

    def test_add(self):
        self.check([1, 3], {"op": "add", "path": "/1", "value": 2}, [1, 2, 3])
        self.check([1], {"op": "add", "path": "/-", "value": 2}, [1, 2])
        self.check([1], {"op": "add", "path": "/1", "value": 2}, [1, 2])
        self.check({"a": 1}, {"op": "add", "path": "/x~1y", "value": 2}, {"a": 1, "x/y": 2})
        self.check({"a": 1}, {"op": "add", "path": "", "value": [2]}, [2])

    def test_add_at_no_place(self):
        for path in ("/3", "/-1", "/01", "/a"):
            self.refuse(PointerError, [1, 2], {"op": "add", "path": path, "value": 0})
        self.refuse(PointerError, {"a": 1}, {"op": "add", "path": "/b/c", "value": 0})

    def test_remove_and_replace(self):
        self.check([1, 2], {"op": "remove", "path": "/0"}, [2])
        self.check({"~1": 1, "/": 2}, {"op": "remove", "path": "/~01"}, {"/": 2})
        self.check([1, 2], {"op": "replace", "path": "/1", "value": None}, [1, None])
        for path in ("/-", "/2", "/-1"):
            self.refuse(PointerError, [1, 2], {"op": "remove", "path": path})
            self.refuse(PointerError, [1, 2], {"op": "replace", "path": path, "value": 0})

    def test_move_and_copy(self):
        self.check({"a": [1, 2], "b": []}, {"op": "move", "from": "/a/0", "path": "/b/-"}, {"a": [2], "b": [1]})
        self.check([1, 2, 3], {"op": "move", "from": "/0", "path": "/2"}, [2, 3, 1])
        self.check({"a": [1]}, {"op": "copy", "from": "/a", "path": "/a/-"}, {"a": [1, [1]]})
        self.refuse(PatchError, {"a": {"b": 1}}, {"op": "move", "from": "/a", "path": "/a/b"})
        self.check({"a": 1}, {"op": "move", "from": "/a", "path": "/ab"}, {"ab": 1})

    def test_test_compares_as_json(self):
        for left, right in itertools.product(([True], [1], [1.0], [0], [False], [None], [""]), repeat=2):
            equal = left == right and isinstance(left[0], bool) == isinstance(right[0], bool)
            operation = {"op": "test", "path": "", "value": {"x": right}}
            if equal:
                self.check({"x": left}, operation, {"x": left})
            else:
                self.refuse(PatchError, {"x": left}, operation)
        self.check({"a": 1, "b": [2]}, {"op": "test", "path": "", "value": {"b": [2.0], "a": 1}}, {"a": 1, "b": [2]})

    def test_failure_leaves_the_document_alone(self):
        self.refuse(
            PatchError, {"a": [1]}, {"op": "add", "path": "/a/-", "value": 2}, {"op": "test", "path": "/a", "value": []}
        )
        self.refuse(PatchError, {}, {"op": "launch", "path": ""})

    def test_result_and_patch_share_nothing(self):
        patch = [
            {"op": "add", "path": "/a", "value": []},
            {"op": "replace", "path": "/b", "value": {}},
            {"op": "add", "path": "/a/-", "value": 1},
        ]
        result = apply({"b": 0}, patch)
        result["b"]["more"] = 1
        self.assertEqual((result, patch[0]["value"], patch[1]["value"]), ({"a": [1], "b": {"more": 1}}, [], {}))


class DiffTest(unittest.TestCase):
    def test_paths_as_others_read_them(self):
        old, new = {"paths": {"/users": 1, "~x": 1}}, {"paths": {"/users": 2, "~x": 2}}
        self.assertEqual([o["path"] for o in diff(old, new)], ["/paths/~1users", "/paths/~0x"])

    def test_true_is_not_one(self):
        self.assertEqual(diff({"a": [1]}, {"a": [True]}), [{"op": "replace", "path": "/a/0", "value": True}])
        self.assertEqual(diff([1], [1.0]), [])

    def test_all_pairs_of_documents(self):
        for old, new in itertools.product(DOCUMENTS, repeat=2):
            patch = diff(old, new)
            result = apply(old, patch)
            self.assertEqual(json.dumps(result, sort_keys=True), json.dumps(new, sort_keys=True), (old, patch))
            self.assertEqual(bool(patch), old is not new, (old, new))

    def test_stays_small(self):
        patch = diff({"a": {"b": [1, 2], "c": 3}}, {"a": {"b": [1, 5], "c": 3}})
        self.assertEqual(patch, [{"op": "replace", "path": "/a/b/1", "value": 5}])
