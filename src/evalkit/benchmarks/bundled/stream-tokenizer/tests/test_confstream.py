import gc
import tracemalloc
import unittest

from confstream import SettingsError, Token, Tokenizer, load

DOCUMENT = (
    b'\xef\xbb\xbf# K\xc3\xb6ln == "x\r\n'
    b"port=8080;\r"
    b"rate = -12.50;\n\r\n"
    b'city = "K\xc3\xb6ln \xf0\x9f\x8e\xad \\u00e9\\n\\"\\\\"; # end\n'
    b'a->b 1->2 1-2 a-b==c!=d<=e>=f<g>h\t[1,""]{}\r\n'
    b'_x9 "\xff" == = = 007 # no line end'
)
TOKENS = [
    Token("name", "port", 2, 1), Token("op", "=", 2, 5), Token("number", 8080, 2, 6), Token("op", ";", 2, 10),
    Token("name", "rate", 3, 1), Token("op", "=", 3, 6), Token("number", -12.5, 3, 8), Token("op", ";", 3, 14),
    Token("name", "city", 5, 1), Token("op", "=", 5, 6),
    Token("string", "K\u00f6ln \U0001f3ad \u00e9\n\"\\", 5, 8), Token("op", ";", 5, 29),
    Token("name", "a-", 6, 1), Token("op", ">", 6, 3), Token("name", "b", 6, 4),
    Token("number", 1, 6, 6), Token("op", "->", 6, 7), Token("number", 2, 6, 9),
    Token("number", 1, 6, 11), Token("number", -2, 6, 12),
    Token("name", "a-b", 6, 15), Token("op", "==", 6, 18), Token("name", "c", 6, 20),
    Token("op", "!=", 6, 21),
    Token("name", "d", 6, 23), Token("op", "<=", 6, 24), Token("name", "e", 6, 26), Token("op", ">=", 6, 27),
    Token("name", "f", 6, 29), Token("op", "<", 6, 30), Token("name", "g", 6, 31), Token("op", ">", 6, 32),
    Token("name", "h", 6, 33),
    Token("op", "[", 6, 35), Token("number", 1, 6, 36), Token("op", ",", 6, 37), Token("string", "", 6, 38),
    Token("op", "]", 6, 40),
    Token("op", "{", 6, 41), Token("op", "}", 6, 42),
    Token("name", "_x9", 7, 1), Token("string", "\ufffd", 7, 5), Token("op", "==", 7, 9),
    Token("op", "=", 7, 12), Token("op", "=", 7, 14),
    Token("number", 7, 7, 16),
]  # fmt: skip

MISTAKES = [
    (b"port = @80;", "line 1, column 8: unexpected character '@'"),
    (b"a\r\n\r\n  \xc3\xb6", "line 3, column 3: unexpected character '\u00f6'"),
    (b"x = 1.;", "line 1, column 6: unexpected character '.'"),
    (b"x = 1.5.2;", "line 1, column 8: unexpected character '.'"),
    (b"x = -;", "line 1, column 5: unexpected character '-'"),
    (b"x = -", "line 1, column 5: unexpected character '-'"),
    (b"x ! = 1;", "line 1, column 3: unexpected character '!'"),
    (b"x !", "line 1, column 3: unexpected character '!'"),
    (b"x = \xef\xbb\xbf1;", "line 1, column 5: unexpected character '\\ufeff'"),
    (b'x = "ab\\qcd";', "line 1, column 8: bad escape"),
    (b'x = "ab\\qcd\n', "line 1, column 8: bad escape"),
    (b'x = "ab\\u12"; y', "line 1, column 8: bad escape"),
    (b'x = "ab\\u12g4";', "line 1, column 8: bad escape"),
    (b'x = "ab\\\ncd";', "line 1, column 8: bad escape"),
    (b'x = "ab\\\rcd";', "line 1, column 8: bad escape"),
    (b'x =\n "ab\ncd";', "line 2, column 2: unfinished string"),
    (b'x =\r "ab\rcd";', "line 2, column 2: unfinished string"),
    (b'x = "ab', "line 1, column 5: unfinished string"),
    (b'x = "ab\\', "line 1, column 5: unfinished string"),
    (b'x = "ab\\u12', "line 1, column 5: unfinished string"),
    (b'x = "ab\\"', "line 1, column 5: unfinished string"),
]


def divisions(data):
    """The data in one piece, byte by byte, in threes, and in two pieces in every way."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    yield [data[i : i + 3] for i in range(0, len(data), 3)]
    yield [b"", data, b""]
    for cut in range(1, len(data)):
        yield [data[:cut], data[cut:]]


def tokenize(chunks):
    tokenizer = Tokenizer()
    found = []
    for chunk in chunks:
        found += tokenizer.feed(chunk)
    return found + tokenizer.close()


class TokensTest(unittest.TestCase):
    def test_in_one_piece(self):
        self.assertEqual(tokenize([DOCUMENT]), TOKENS)

    def test_however_it_is_divided(self):
        for chunks in divisions(DOCUMENT):
            self.assertEqual(tokenize(chunks), TOKENS, chunks)

    def test_numbers_keep_their_type(self):
        for chunks in divisions(b"1 1.0 -0"):
            self.assertEqual([repr(token.value) for token in tokenize(chunks)], ["1", "1.0", "0"])

    def test_truncated_characters(self):
        for chunks in divisions(b'"\xf0\x9f\x8e" "\xc3\xc3\xb6\x80"'):
            self.assertEqual([token.value for token in tokenize(chunks)], ["\ufffd", "\ufffd\u00f6\ufffd"], chunks)

    def test_only_a_byte_order_mark(self):
        for data in (b"\xef\xbb\xbf", b"", b"\r\n", b"# x"):
            for chunks in divisions(data):
                self.assertEqual(tokenize(chunks), [])


class MistakesTest(unittest.TestCase):
    def test_however_it_is_divided(self):
        for data, message in MISTAKES:
            for chunks in divisions(data):
                with self.assertRaises(SettingsError, msg=chunks) as caught:
                    tokenize(chunks)
                self.assertEqual(str(caught.exception), message, chunks)

    def test_raised_as_soon_as_it_is_certain(self):
        for before, last in (
            (b"x = ", b"@"),
            (b"x -", b"x"),
            (b"1.", b"x"),
            (b'"a', b"\n"),
            (b'"a\\', b"q"),
            (b'"\\u00', b"g"),
            (b"!", b" "),
        ):
            tokenizer = Tokenizer()
            tokenizer.feed(before)
            with self.assertRaises(SettingsError, msg=before + last):
                tokenizer.feed(last)


class PromptTest(unittest.TestCase):
    def check(self, *steps):
        tokenizer = Tokenizer()
        for data, values in steps:
            self.assertEqual([token.value for token in tokenizer.feed(data)], values, data)

    def test_certain_at_once(self):
        self.check((b";", [";"]), (b"{", ["{"]), (b"]", ["]"]), (b'"a"', ["a"]), (b"==", ["=="]), (b"->", ["->"]))

    def test_certain_with_the_next_character(self):
        self.check((b"port", []), (b" ", ["port"]), (b"=", []), (b"80", ["="]), (b"80", []), (b";", [8080, ";"]))

    def test_operators_that_may_become_longer(self):
        self.check(
            (b"=", []),
            (b"=", ["=="]),
            (b"=", []),
            (b"x", ["="]),
            (b"<", ["x"]),
            (b"=", ["<="]),
            (b">", []),
            (b"<", [">"]),
            (b" ", ["<"]),
        )

    def test_numbers_that_may_become_longer(self):
        self.check((b"-", []), (b"1", []), (b".", []), (b"5", []), (b"\n", [-1.5]), (b"2-", [2]), (b">", ["->"]))

    def test_line_end_ends_a_token(self):
        self.check((b"port", []), (b"\r", ["port"]), (b"\n8", []), (b"#", [8]), (b" x;\n;", [";"]))

    def test_memory_does_not_grow(self):
        tokenizer = Tokenizer()
        tokenizer.feed(b"x = 1;\n")
        gc.collect()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for _ in range(50):
            tokenizer.feed(b'name = "value"; # comment\r\n' * 10)
        tokenizer.feed(b"#")
        for _ in range(50):
            tokenizer.feed(b"@ a long comment" * 125)
        gc.collect()
        self.assertLess(tracemalloc.get_traced_memory()[0], 50000)


class LoadTest(unittest.TestCase):
    document = (
        b'name = "x"; # comment = 1;\r\nlimits { soft = 10; hard = -1.5; }\r\n'
        b'lists = [1, [], "a", true,];\r\noff = none;'
    )

    def test_settings(self):
        expected = {"name": "x", "limits": {"soft": 10, "hard": -1.5}, "lists": [1, [], "a", True], "off": None}
        for chunks in divisions(self.document):
            self.assertEqual(load(chunks), expected, chunks)

    def test_first_mistake_however_it_is_divided(self):
        for data, message in (
            (b"a b; @", "line 1, column 3: expected '=' or '{'"),
            (b'a = 1; a = 2; "', "line 1, column 8: a is there already"),
            (b"a = 1 b @", "line 1, column 7: expected ';'"),
            (b"a = [1 2 \\", "line 1, column 8: expected ',' or ']'"),
            (b"a = @ b;", "line 1, column 5: unexpected character '@'"),
            (b"a = ;\n@", "line 1, column 5: expected a value"),
            (b"a 1.", "line 1, column 3: expected '=' or '{'"),
        ):
            for chunks in divisions(data):
                with self.assertRaises(SettingsError, msg=chunks) as caught:
                    load(chunks)
                self.assertEqual(str(caught.exception), message, chunks)

    def test_asks_for_no_more_than_it_needs(self):
        def chunks(*given):
            yield from given
            self.fail("asked for more")

        for given in ((b"a = ", b"@"), (b"a", b" b "), (b'a = "', b"\\q")):
            with self.assertRaises(SettingsError):
                load(chunks(*given))
