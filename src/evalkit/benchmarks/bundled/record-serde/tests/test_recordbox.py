import json
import unittest
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal as D

import models_invoices as invoices
from models_orders import (
    BadKeys,
    BadType,
    BadUnion,
    BigGiftLine,
    Card,
    Containers,
    GiftLine,
    Keys,
    Line,
    Order,
    Place,
    Scalars,
    Size,
    Tree,
)
from recordbox import RecordError, dump, dumps, load, loads

DAY = date(2024, 5, 1)
MOMENT = datetime(2024, 5, 1, 12, 30, 15, 250000, timezone(timedelta(hours=2)))
TEA = Line("tea", D("4.10"))


def order(**changes):
    values = {"number": 7, "placed": DAY, "lines": [TEA], "stock": {Place.NORTH: 3}, "note": None, **changes}
    return Order(**values)


class RoundTripTest(unittest.TestCase):
    def check(self, value):
        back = loads(type(value), dumps(value))
        self.assertEqual(back, value)
        self.assertEqual(repr(back), repr(value))  # of the same types, too
        self.assertEqual(dump(back), json.loads(dumps(value)))

    def test_order(self):
        self.check(order())
        self.check(order(lines=[], stock={}, note="urgent"))

    def test_scalars(self):
        self.check(Scalars())
        self.check(
            Scalars(
                "\u00e9\x00", 2**70, 0.1, True, D("-1E+30"), DAY, MOMENT, bytes(range(256)), Place.NORTH, Size.LARGE
            )
        )

    def test_decimals_are_exact(self):
        for text in ("0.1000000000000000055", "4.10", "-0.00", "123456789012345678901234567890.5", "1E-20"):
            self.check(Scalars(price=D(text)))

    def test_containers(self):
        self.check(
            Containers(
                (1, TEA),
                (TEA, TEA),
                [D(1), D("2.50")],
                [TEA],
                {Place.SOUTH},
                frozenset([DAY]),
                {"a": [{Size.LARGE: (DAY, DAY)}, {Size.SMALL: None}]},
            )
        )
        self.check(Containers((1, TEA), (), [], None, None, frozenset(), {}, {"any": [1, None, "x"]}))

    def test_keys(self):
        self.check(
            Keys({-1: "a", 10: "b"}, {True: "yes", False: "no"}, {DAY: "day"}, {MOMENT: "now"}, {D("1.50"): "x"})
        )

    def test_tree(self):
        self.check(Tree("a", [Tree("b", [Tree("c")]), Tree("d")]))

    def test_classes_of_the_same_name(self):
        self.check(TEA)
        self.check(invoices.Line("x", MOMENT))
        self.check(TEA)
        self.assertEqual(sorted(dump(invoices.Line("x", MOMENT))), ["at", "text"])

    def test_subclasses(self):
        gift, big = GiftLine("cup", D(5), Card("hello")), BigGiftLine("cup", D(5), None, 2.5)
        self.check(order(lines=[TEA, gift, big]))
        self.check(Containers((1, gift), (big,), [], [gift], None, frozenset(), {}))
        self.check(gift)

    def test_fields_outside_init(self):
        changed = order()
        changed.total = D("3.99")
        self.check(changed)
        labelled = BigGiftLine("cup", D(5))
        object.__setattr__(labelled, "label", "fragile")
        self.check(labelled)
        self.check(order(lines=[labelled]))


class DumpTest(unittest.TestCase):
    def test_shape(self):
        expected = {
            "number": 7,
            "placed": "2024-05-01",
            "lines": [{"article": "tea", "price": "4.10"}],
            "stock": {"NORTH": 3},
            "note": None,
            "total": "4.10",
        }
        self.assertEqual(list(dump(order()).items()), list(expected.items()))

    def test_type_only_where_it_is_needed(self):
        gift = GiftLine("cup", D(5), Card("hello"))
        self.assertNotIn("$type", dump(gift))
        self.assertEqual(
            [line.get("$type") for line in dump(order(lines=[TEA, gift, BigGiftLine("x", D(1))]))["lines"]],
            [None, "GiftLine", "BigGiftLine"],
        )

    def test_sets_are_sorted(self):
        days = frozenset(DAY + timedelta(days=number) for number in (5, 1, 30))
        dumped = dump(Containers((1, TEA), (), [], None, {Place.SOUTH, Place.NORTH}, days, {}))
        self.assertEqual(
            (dumped["reverse"], dumped["frozen"]), (["NORTH", "SOUTH"], ["2024-05-02", "2024-05-06", "2024-05-31"])
        )

    def test_keys_are_texts(self):
        dumped = dump(Keys({1: "a"}, {True: "b"}, {DAY: "c"}, {datetime(2024, 5, 1): "d"}, {D("1.50"): "e"}))
        self.assertEqual(
            [list(part) for part in dumped.values()],
            [["1"], ["true"], ["2024-05-01"], ["2024-05-01T00:00:00"], ["1.50"]],
        )

    def test_what_cannot_be_declared(self):
        for bad in (BadUnion(TEA), BadType(), BadKeys({b"x": 1})):
            with self.assertRaises(TypeError, msg=bad):
                dump(bad)
            with self.assertRaises(TypeError, msg=bad):
                load(type(bad), {"value": {}})
        for bad in (7, {"a": 1}, Order):
            with self.assertRaises(TypeError):
                dump(bad)


class LoadTest(unittest.TestCase):
    def refuse(self, cls, data, path):
        with self.assertRaises(RecordError, msg=data) as caught:
            load(cls, data)
        self.assertEqual(caught.exception.path, path)

    def refuse_order(self, path, **changes):
        data = {**dump(order()), **changes}
        self.refuse(Order, {key: value for key, value in data.items() if value != "MISSING"}, path)

    def test_defaults(self):
        back = load(Order, {"number": 1, "placed": "2024-05-01", "lines": []})
        self.assertEqual(back, Order(1, DAY, []))
        self.assertEqual(
            load(Order, {"number": 1, "placed": "2024-05-01", "lines": [{"article": "x", "price": "2"}]}).total, D(2)
        )

    def test_unknown_and_missing_fields(self):
        self.refuse_order("extra", extra=1)
        self.refuse_order("placed", placed="MISSING")
        self.refuse_order("lines[1].colour", lines=[dump(TEA), {**dump(TEA), "colour": "red"}])
        self.refuse_order("lines[0].price", lines=[{"article": "x"}])

    def test_wrong_json_types(self):
        for path, value in (
            ("number", "7"),
            ("number", True),
            ("number", 7.0),
            ("number", None),
            ("placed", 20240501),
            ("placed", None),
            ("lines", {}),
            ("lines", "tea"),
            ("stock", []),
            ("note", 5),
            ("total", 4.1),
        ):
            self.refuse_order(path, **{path: value})
        for path, value in (
            ("flag", 1),
            ("ratio", True),
            ("ratio", "1"),
            ("text", 1),
            ("nothing", 0),
            ("data", [1]),
            ("size", 1),
        ):
            self.refuse(Scalars, {path: value}, path)
        self.refuse(Order, [], "")
        self.refuse_order("lines[0]", lines=["tea"])

    def test_malformed_texts(self):
        for path, value in (
            ("price", "four"),
            ("price", ""),
            ("price", "NaN"),
            ("price", "Infinity"),
            ("day", "yesterday"),
            ("moment", "x"),
            ("data", "a"),
            ("data", "\u00e9"),
            ("place", "WEST"),
            ("place", "n"),
        ):
            self.refuse(Scalars, {path: value}, path)

    def test_tuples(self):
        data = dump(Containers((1, TEA), (TEA,), [], None, None, frozenset(), {}))
        for pair in ([], [1], [1, dump(TEA), 3]):
            self.refuse(Containers, {**data, "pair": pair}, "pair")
        self.refuse(Containers, {**data, "pair": ["1", dump(TEA)]}, "pair[0]")
        self.refuse(Containers, {**data, "many": [dump(TEA), 5]}, "many[1]")
        self.refuse(Containers, {**data, "nested": {"a": [{"LARGE": ["x"]}]}}, 'nested["a"][0]["LARGE"][0]')

    def test_keys(self):
        self.refuse_order('stock["WEST"]', stock={"NORTH": 1, "WEST": 2})
        self.refuse_order('stock["NORTH"]', stock={"NORTH": "3"})
        self.refuse_order('stock["UP"]', stock={"NORTH": 1, "UP": 2})
        self.refuse(Keys, {"by_int": {"x": ""}}, 'by_int["x"]')
        self.refuse(Keys, {"by_bool": {"True": ""}}, 'by_bool["True"]')
        self.refuse(Keys, {"by_decimal": {"1.5": "", "1.50": ""}}, 'by_decimal["1.50"]')
        self.refuse(Keys, {"by_date": {"May": ""}}, 'by_date["May"]')

    def test_types(self):
        self.refuse_order("lines[0]", lines=[{"$type": "Card", "text": "x"}])
        self.refuse_order("lines[0]", lines=[{"$type": "NoSuchLine", **dump(TEA)}])
        self.refuse_order("lines[0].card.text", lines=[{"$type": "GiftLine", **dump(TEA), "card": {"text": 1}}])
