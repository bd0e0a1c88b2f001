import copy
import unittest

from layerconf import DEFAULTS, Settings

PRISTINE = copy.deepcopy(DEFAULTS)


class IsolationTest(unittest.TestCase):
    def tearDown(self):
        changed = copy.deepcopy(DEFAULTS)
        DEFAULTS.clear()
        DEFAULTS.update(copy.deepcopy(PRISTINE))
        self.assertEqual(changed, PRISTINE, "the defaults of the package were changed")

    def test_layer_of_one_object_is_not_in_the_next(self):
        Settings().add_layer({"database": {"host": "db-1"}})
        self.assertEqual(Settings().get("database.host"), "localhost")

    def test_value_set_in_one_object_is_not_in_the_next(self):
        Settings().set("database.pool.size", 50)
        self.assertEqual(Settings().get("database.pool.size"), 5)

    def test_set_does_not_reach_the_dictionary_passed_in(self):
        given = {"cache": {"size": 1}}
        settings = Settings([given])
        settings.set("cache.size", 2)
        self.assertEqual(given, {"cache": {"size": 1}})

    def test_add_layer_does_not_extend_the_list_passed_in(self):
        layers = [{"a": 1}]
        Settings(layers).add_layer({"b": 2})
        self.assertEqual(layers, [{"a": 1}])

    def test_later_changes_by_the_caller_have_no_effect(self):
        first, second, third = {"cache": {"size": 1}}, {"cache": {"ways": [1]}}, {"x": 1}
        settings = Settings([first])
        settings.add_layer(second)
        settings.set("extra", third)
        first["cache"]["size"] = 99
        second["cache"]["ways"].append(2)
        third["x"] = 99
        settings.add_layer({"unrelated": True})
        self.assertEqual(settings.get("cache"), {"size": 1, "ways": [1]})
        self.assertEqual(settings.get("extra"), {"x": 1})

    def test_list_from_get_belongs_to_the_caller(self):
        shared = {"logging": {"handlers": ["console"]}}
        a, b = Settings([shared]), Settings([shared])
        a.get("logging.handlers").append("file")
        self.assertEqual(a.get("logging.handlers"), ["console"])
        self.assertEqual(b.get("logging.handlers"), ["console"])
        self.assertEqual(shared, {"logging": {"handlers": ["console"]}})

    def test_as_dict_belongs_to_the_caller(self):
        settings = Settings()
        settings.as_dict()["database"]["pool"]["size"] = 0
        settings.as_dict().clear()
        self.assertEqual(settings.as_dict(), PRISTINE)

    def test_copy_and_original_go_separate_ways(self):
        original = Settings([{"name": "one"}])
        original.set("tags", ["x"])
        twin = original.copy()
        self.assertEqual(twin.as_dict(), original.as_dict())
        twin.add_layer({"name": "two"})
        twin.set("database.host", "db-2")
        original.set("database.port", 1)
        self.assertEqual((original.get("name"), original.get("database.host")), ("one", "localhost"))
        self.assertEqual((twin.get("name"), twin.get("database.port"), twin.get("tags")), ("two", 5432, ["x"]))

    def test_set_dictionary_is_not_changed_by_a_deeper_set(self):
        value = {"size": 1}
        settings = Settings()
        settings.set("cache", value)
        settings.set("cache.size", 2)
        self.assertEqual(value, {"size": 1})
        self.assertEqual(settings.get("cache.size"), 2)


class LayeringTest(unittest.TestCase):
    def test_later_layers_win_key_by_key(self):
        settings = Settings([{"database": {"host": "a", "port": 1}}, {"database": {"host": "b"}}])
        self.assertEqual(settings.get("database.host"), "b")
        self.assertEqual(settings.get("database.port"), 1)
        self.assertEqual(settings.get("database.pool.timeout"), 30)

    def test_set_wins_over_a_layer_added_afterwards(self):
        settings = Settings()
        settings.set("database.host", "forced")
        settings.add_layer({"database": {"host": "late", "port": 2}})
        self.assertEqual((settings.get("database.host"), settings.get("database.port")), ("forced", 2))

    def test_missing_path_gives_the_default(self):
        self.assertIsNone(Settings().get("no.such.path"))
        self.assertEqual(Settings().get("database.host.deeper", 7), 7)
