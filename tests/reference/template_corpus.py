"""Templates over the whole language for template_parity.py, and a generator of random ones.

Each line of EXPRESSIONS is put into {{ … }}; BLOCKS are whole templates.
"""

VARIABLES = {
    "i": 7, "n": -3, "zero": 0, "x": 2.5, "big": 1e21, "tiny": 1e-7, "t": True, "f": False, "none_": None,
    "s": "Hello World", "u": "Grüße, 世界 🙂!", "blank": "  pad \t\n", "empty": "", "html": "<a href='x'>T&C</a> \"q\"",
    "digits": "0042", "lines": "one\ntwo\r\nthree\n\nfour", "words": "the quick-brown fox (jumps) over",
    "l": [3, 1, 2], "ls": ["b", "A", "c", "a"], "mixed": [1, "two", None, 3.0, True, [4], {"five": 5}],
    "d": {"b": 1, "a": 2, "C": 3}, "nested": {"k": {"l": [{"m": "deep"}]}}, "items_key": {"items": 1, "keys": 2},
    "people": [{"name": "Ann", "age": 30, "city": "Bern"}, {"name": "bob", "age": 25, "city": "Basel"},
               {"name": "Cid", "age": 30}],
    "tree": [{"v": 1, "c": [{"v": 2, "c": []}, {"v": 3, "c": [{"v": 4, "c": []}]}]}],
}

EXPRESSIONS = r"""
1 + 2 * 3 - 4 / 2
7 // 2 ~ ' ' ~ -7 // 2 ~ ' ' ~ 7 // -2 ~ ' ' ~ 7.5 // 2
7 % 3 ~ ' ' ~ -7 % 3 ~ ' ' ~ 7 % -3 ~ ' ' ~ -7.5 % 2 ~ ' ' ~ 0.0 % -3
2 ** 3 ** 2
2 ** -1 ~ ' ' ~ (-8) ** 2 ~ ' ' ~ -2 ** 2 ~ ' ' ~ 2.0 ** 0.5
1 / 0
1 // 0
1 % 0
1.0 / 0.0
10 / 4 ~ ' ' ~ 10 / 5 ~ ' ' ~ 1e16 ~ ' ' ~ 1e15 ~ ' ' ~ 123456789012345680.0 ~ ' ' ~ 0.0001 ~ ' ' ~ 0.00001
1_000 + 0x_ff + 0b101 + 0o17 ~ 1_0.5e1
big ~ tiny ~ x ~ -0.0
1 < 2 < 3, 1 < 3 < 2, 1 == 1.0, True == 1, 'a' < 'b', [1, 2] < [1, 3], (1, 2) < (1, 2, 0)
1 < 'a'
none < 1
{} < {}
1 in [1, 2], 3 not in [1, 2], 'a' in 'abc', 'k' in {'k': 1}, 1.0 in [1]
1 in 'abc'
1 in 5
not true, not '', not [], not {}, not 0, not none, not missing
true and 'x', '' and 'x', 0 or 'y', 'z' or 'y', missing or 'd'
'a' if i > 3 else 'b'
'a' if i > 30
('a' if i > 30).x
'a' if false else 'b' if true else 'c'
i is odd, i is even, i is divisibleby 7, i is divisibleby(3), i is not divisibleby 7
none_ is none, t is true, f is false, t is boolean, i is integer, x is float, i is number, t is number, t is integer
s is string, l is iterable, s is iterable, i is iterable, d is mapping, l is mapping, l is sequence, d is sequence, i is sequence
missing is defined, missing is undefined, s is defined, d.zz is defined, d.a is defined
i is eq 7, i is == 7, i is ne 7, i is gt 3, i is ge 7, i is lt 3, i is le 7, i is in [7], i is greaterthan 3
'abc' is lower, 'ABC' is upper, 'aBC' is lower, '1' is lower, 'É' is upper
s is sameas s, none is sameas none, true is sameas true, 1 is sameas true
range is callable, s is callable, 'upper' is filter, 'nope' is filter, 'odd' is test, 'nope' is test
s is nope
s|nope
missing
missing.x
missing['x']
missing()
missing + 1
missing ~ 'x'
-missing
missing == missing, missing != 1, missing == none
missing|length, missing|list, missing|upper, missing|default('d'), missing|join(',')
missing < 1
1 in missing
none_.x
none_.x.y
none_|default('d'), none_|default('d', true), ''|default('d', true), ''|d('d')
none_ + 'x'
'x' + 1
'x' ~ 1 ~ none ~ true ~ 1.5 ~ [1, 'a'] ~ {'k': none}
[1] + [2, 'x'], (1,) + (2,), [0] * 3, 'ab' * 2, 3 * 'ab', 'ab' * -1, (1, 2) * 2
[1] + (2,)
{'a': 1} + {'b': 2}
- 'x'
+ 3, + x, - true, true + true, true / 2
[1, 'a', none, true, 1.5, (1,), (), {}, {'a': 'b'}, "it's", 'q"q', 'both\'"']
'\n\t\\\x41\u00e9\U0001F642\101', ['\n\t\\\x00\x7f\u00e9\u200b\U0001F642']
'unknown \d escape \q'
'adjacent' ' strings' "joined"
u[0], u[-1], u[2], u[:5], u[5:], u[::-1], u[::2], u[-3:], u[1:-1], u[10:3], u[99:], u[-99:3]
u[99]
l[0], l[-1], l[1:], l[::-1], l[::-2], l[5:], l[:-1], l[2:0:-1], l[-2:], (1, 2, 3)[::-1]
l[9]
l[9] is defined, l['x'] is defined, l[none] is defined, l.0, mixed.5.0
l[::0]
none_[1:]
d[1:]
i[0]
d['a'], d.a, d['zz'], d.zz, items_key['items'], items_key.items()|list
d.get('a'), d.get('zz'), d.get('zz', 9), d.keys()|list, d.values()|list, d.items()|list, d.keys(), d.values(), d.items()
d.items()[0]
d.keys()|first, d|length, d|list, d|first, d.copy()
nested.k.l[0].m, nested['k']['l'][-1]['m'], nested.k.zz, nested.k['zz']['y'] is defined
nested.zz.y
{'a': 1, 1: 'b', none: 3, true: 4, 1.5: 5, (1, 2): 6}
{[1]: 2}
{'a': 1, 'a': 2}
l.append(4)
l.append is defined, d.update is defined, s.__class__, s.__class__.__mro__
d.pop('a')
l.index(2), l.count(3), (1, 2, 1).count(1), l.index(99) if false
l.index(99)
s.upper(), s.lower(), s.title(), s.capitalize(), s.swapcase(), 'ß'.upper(), 'ǆ'.title(), 'ΑΣ'.lower(), "they're bill's".title()
blank.strip() ~ '|' ~ blank.lstrip() ~ '|' ~ blank.rstrip() ~ '|' ~ 'xxaxx'.strip('x') ~ '\u3000a\u00a0\x1c'.strip() ~ '|'
s.split(), s.split('o'), s.split('o', 1), s.rsplit('o', 1), s.rsplit(maxsplit=1), s.split(none, 1), ' a  b '.split(), ' a  b '.split(' '), ''.split(), ''.split(',')
s.split('')
lines.splitlines(), lines.splitlines(true), 'a\x0bb\x0cc\x1cd\x85e\u2028f'.splitlines()
s.partition(' '), s.rpartition('o'), s.partition('zz'), s.rpartition('zz')
s.startswith('Hell'), s.endswith('ld'), s.startswith(('x', 'H')), s.startswith('l', 2), s.endswith('o', 0, 5), s.startswith('', 99)
s.startswith(1)
s.find('o'), s.rfind('o'), s.find('zz'), s.index('W'), u.find('世'), s.find('o', 5), s.find('o', -3), s.count('l'), s.count(''), s.rindex('l')
s.index('zz')
s.replace('o', '0'), s.replace('o', '0', 1), s.replace('', '-'), s.replace('', '-', 2), s.replace('o', ''), u.replace('世界', 'w')
s.replace('o', 1)
'-'.join(ls), ''.join([]), '-'.join('abc'), ','.join(d)
'-'.join(l)
'abc'.isalpha(), '123'.isdigit(), '１２'.isdigit(), '½'.isnumeric(), '²'.isdigit(), '²'.isdecimal(), 'a1'.isalnum(), ' \n'.isspace(), ''.isspace(), 'Ab'.istitle(), 'A B'.isupper(), 'é'.isalpha(), 'a b'.isidentifier(), 'a\n'.isprintable(), 'é'.isascii()
'7'.zfill(3), '-7'.zfill(4), 'a'.ljust(3, '.'), 'a'.rjust(3, '.'), 'a'.center(4, '.'), 'ab'.center(5, '.'), 'abc'.center(4), 'x'.center(2,'.')
'unhappy'.removeprefix('un'), 'unhappy'.removesuffix('y'), 'a\tb'.expandtabs(4), 'ß'.casefold()
'{} {}'.format(1, 'a'), '{1} {0} {k}'.format(1, 2, k='v'), '{0[a]} {0.b}'.format(d), '{:>5}|{:<5}|{:^5}|{:*^7}'.format('a', 'b', 'c', 'd')
'{:d} {:5d} {:05d} {:+d} {:x} {:#X} {:b} {:o} {:,} {:_} {:e} {:.2f} {:8.3f} {:g} {:%} {:.1%}'.format(5, 5, 5, 5, 255, 255, 5, 8, 1234567, 1234567, 12345.678, 1.005, 3.14159, 1e-7, 0.5, 0.256)
'{!r} {!s} {:{}}'.format('a', 'b', 'c', 5), '{{}}'.format(), '{:.3}'.format('abcdef'), '{}'.format(none), '{}'.format([1])
'{:d}'.format('x')
'{}'.format()
'{'.format(1)
'%s %d %r %5.2f %x %%' % ('a', 3, 'b', 2.345, 255), '%s' % 'x', '%(k)s' % {'k': 1}, '%05d|%-5s|%+d|%e' % (42, 'a', 3, 1234.5), '%s' % [1, 2], '%c%c' % (65, 'b'), '%.2s' % 'abc', '%*d' % (5, 3)
'%s %s' % 'x'
'%s' % ('a', 'b')
'%d' % 'x'
'%q' % 1
'x' % 1
s|upper, s|lower, s|capitalize, s|title, words|title, "it's o'clock"|title, s|length, u|length, s|reverse, u|reverse, s|first, s|last, s|list
blank|trim ~ '|', 'xxaxx'|trim('x'), s|replace('o', '0'), s|replace('o', '0', 1), 5|string, 5|upper, none|string
s|truncate(5), s|truncate(8, true), s|truncate(8, false, '~', 0), s|truncate(200), words|truncate(12, leeway=0), words|truncate(14, true, '', 0)
s|truncate(1)
s|wordcount, words|wordcount, words|wordwrap(10), words|wordwrap(6, false), 'abcdefghijkl'|wordwrap(5), lines|wordwrap(3, wrapstring='/'), s|center(20) ~ '|'
lines|indent, lines|indent(2, true), lines|indent('>>', blank=true), ''|indent, 'a\n\nb'|indent(first=true)
html|e, html|escape|e, html|striptags, html|forceescape, ('<' ~ html|e), html|safe, html|e + '<', '<b>'|e ~ '<', (html|e) is escaped, [html|e]
'a b/c?d=é&'|urlencode, {'a b': 1, 'c': 'é/'}|urlencode, [('x', 1)]|urlencode, {'class': 'a b', 'id': none, 'x': '<'}|xmlattr
'%s-%s'|format(1, 2), '%(a)s'|format(a=1)
'42'|int, '42.7'|int, 'x'|int, 'x'|int(5), '0x1f'|int(0, 16), '1f'|int(base=16), 3.9|int, -3.9|int, true|int, none|int(3), ' 12 '|int, '1_0'|int, '-5'|int, '0b11'|int(0, 2), [1]|int
'2.5'|float, 'x'|float, 'x'|float(1.5), 3|float, '1e3'|float, 'inf'|float, '-INF'|float, 'nan'|float, ' 1.5 '|float, none|float
missing|int
x|round, 3.5|round, 2.675|round(2), 1234.5678|round(2), 1234.5678|round(-2), 2.1|round(0, 'ceil'), 2.9|round(0, 'floor'), 2.1234|round(2, 'ceil'), 7|round, 15|round(-1), 25|round(-1), true|round, 0.5|round, 1.5|round
x|round(1, 'nope')
-5|abs, (-5)|abs, (-2.5)|abs, '5'|abs if false
1|filesizeformat, 999|filesizeformat, 1000|filesizeformat, 1234567|filesizeformat, 1024|filesizeformat(true), 123456789012|filesizeformat(true), '5000'|filesizeformat
l|sort, l|sort(reverse=true), ls|sort, ls|sort(case_sensitive=true), people|sort(attribute='age')|map(attribute='name')|list, people|sort(attribute='age,name', reverse=true)|map(attribute='name')|join(' '), d|sort, 'hello'|sort
mixed|sort
d|dictsort, d|dictsort(true), d|dictsort(by='value', reverse=true), d|dictsort(false, 'value')
d|dictsort(by='x')
l|min, l|max, ls|min, ls|max, ls|max(true), people|max(attribute='age'), []|max, []|min is defined, l|sum, []|sum, people|sum('age'), people|sum(attribute='age', start=100), [[1], [2]]|sum(start=[])
ls|sum
l|join, l|join('-'), people|join(', ', attribute='name'), people|join(', ', 'city'), mixed|join('|'), 'abc'|join('.'), d|join(',')
l|first, l|last, []|first, []|first is defined, d|last, range(3)|last, l|list, l|reverse|list, d|reverse|list, (1, 2)|reverse|list, range(4)|list|reverse|first
l|map('string')|join, ls|map('upper')|list, people|map(attribute='name')|list, people|map(attribute='city', default='?')|list, people|map('length')|list, [[1, 2], [3]]|map('sum')|list, [{'a': {'b': 1}}]|map(attribute='a.b')|list, [[1, 2]]|map(attribute=1)|list, [[5]]|map(attribute='0')|list, ['a,b']|map('replace', ',', ';')|list
l|map|list
l|map('nope')|list
l|select('odd')|list, l|reject('odd')|list, l|select('gt', 1)|list, mixed|select|list, mixed|select('string')|list, [0, 1, '', 'a', none]|reject|list, l|select('in', [1, 2])|list, l|select('divisibleby', 3)|list, l|select('>', 2)|list
people|selectattr('age', 'equalto', 30)|map(attribute='name')|list, people|selectattr('city')|list|length, people|rejectattr('city')|list, people|selectattr('city', 'defined')|list|length, people|rejectattr('city', 'defined')|list|length, people|selectattr('name', 'in', ['Ann', 'Cid'])|map(attribute='age')|list
l|select('nope')|list
people|groupby('age'), people|groupby('city', default='none')|list
people|groupby('age')|map(attribute='grouper')|list, (people|groupby('age'))[0].list|length
ls|unique|list, [1, 1.0, true, 2]|unique|list, ls|unique(true)|list, people|unique(attribute='age')|map(attribute='name')|list, 'aAbB'|unique|join
l|batch(2)|list, l|batch(2, 'x')|list, range(7)|slice(3)|list, range(7)|slice(3, '-')|list, []|batch(3)|list
d|items|list, missing|items|list, people[0]|items|list
l|items|list
l|length, d|count, 'x'|count, range(5)|length
5|length
l|map('upper')|length
(l|map('string'))[0]
l|map('upper') is iterable, l|map('upper') is sequence
people[0]|attr('name'), people[0]|attr('keys') is callable, s|attr('upper')()
d|tojson, mixed|tojson, u|tojson, html|tojson, nested|tojson(indent=2), d|tojson(sort_keys=true), [1, 2]|tojson(separators=(',', ':')), []|tojson(indent=2), {'a': [], 'b': {}}|tojson(indent=4), u|tojson(ensure_ascii=true), [1.0, 1e30, 1e-9, true, none]|tojson, '\x00\x1f\x7f\u2028"\\'|tojson, {1: 2, none: 3, true: 4, 1.5: 5}|tojson, (1, 2)|tojson, d|tojson(indent='--'), d|tojson(indent=0)
missing|tojson
d.items()|tojson
range(3)|tojson
{(1, 2): 3}|tojson
range(5)|list, range(2, 5)|list, range(5, 0, -2)|list, range(3), range(1, 9, 3), range(5)[1:3], range(5)[-1], range(0)|list, 3 in range(5), range(5)[::2]|list
range(1, 2, 0)
range(1000000)
range('x')
dict(a=1, b=2), dict({'x': 1}, y=2), dict([('k', 'v')]), dict()
namespace(a=1), namespace({'x': 2}, y=3).x, namespace() is defined
cycler('a', 'b').next(), joiner(' ')()
raise_exception('stop')
raise_exception()
strftime_now('%Y-%m-%d %H:%M:%S %a %b %j %d/%m/%y %% %I %p %B %A %U %w %-d %e')
l is sequence and l is not mapping or false
i if i is defined and i > 5 else 'no'
(1, 2), (1,), (), 1, 2
1 if true, 2
[1, 2,], {'a': 1,}, (1, 2,)
s.upper().lower().title()[0:3]|upper|list|join('-')
-i|abs, (-i)|abs, not i is odd, not i in [7], -i ** 2
i is odd and s is string
'a' 'b' ~ 'c', 'a' ~ 1 + 2 ~ 'b'
1 ~ 2 * 3, 1 + 2 ~ 3, '5' * 2 ~ 3
d['a' ~ ''], d['a' if t else 'b'], l[i - 7], l[l|length - 1]
loop is defined, self is defined or true, varargs is defined, caller is defined
3.real if false else 'x'
true.real if false else 'ok', (1).x is defined
[[1, 2], [3, 4]][1][0], [[1, 2], [3, 4]]|first|last, {'a': [1, {'b': 2}]}['a'][1].b
'abc'|list|map('upper')|join, 'abc'[1], 'abc'.upper()[0], ('a', 'b')[1]
u|upper, u|lower, u.title(), 'straße'|upper, 'İ'|lower|length, 'ŉ'|upper, 'ﬁ'|capitalize
'a' < 'B', 'ä' > 'z', '\uffff' < '\U00010000', 'a' == 'a', 'a' != 'b', 'a' >= 'a'
none == false, 0 == false, '' == false, [] == (), {} == {}, {'a': 1, 'b': 2} == {'b': 2, 'a': 1}, 1 == '1'
9223372036854775807, -9223372036854775807, 4611686018427387904 + 4611686018427387903, 3037000499 * 3037000499
1.5e300 * 1e10, 1e308 * 10, -1e308 * 10, 5e-324, 1.7976931348623157e308, 0.1 + 0.2, 1/3, 100.0, 1e2, 123456.789e3
1 +
1 2
(1
[1, 2
{'a'}
'unclosed
a b c
1 = 2
.5
5.
5.x
i.7
@
foo(a=1, 2)
foo(a=1, a=2)
foo(*[1], *[2])
foo(**{'a': 1}, b=2)
x is
x is not
l[
s|
not
"""

BLOCKS = [
    "{% if i > 5 %}big{% elif i > 3 %}mid{% else %}small{% endif %}",
    "{% if i > 50 %}big{% elif i > 3 %}mid{% else %}small{% endif %}",
    "{% if missing %}a{% elif none_ %}b{% elif false %}c{% endif %}|",
    "{% for a in l %}{{ a }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{% for a in [] %}x{% else %}none{% endfor %}{% for a in l if a > 9 %}x{% else %}none{% endfor %}",
    "{% for a in l if a > 1 %}{{ loop.index }}/{{ loop.length }}:{{ a }} {% endfor %}",
    "{% for a in 'abc' %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %}",
    "{% for a in l %}[{{ loop.previtem }}<{{ a }}>{{ loop.nextitem }}]{{ loop.previtem is defined }}{% endfor %}",
    "{% for a in range(5) %}{{ loop.cycle('odd', 'even') }} {% endfor %}",
    "{% for a in [1, 1, 2, 2, 1] %}{{ loop.changed(a) }} {{ loop.changed(a, 1) }};{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}",
    "{% for a, b in [(1, 2), (3, 4)] %}{{ a + b }} {% endfor %}{% for a, b in [[1, 2, 3]] %}{{ a }}{% endfor %}",
    "{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for a in 5 %}{% endfor %}", "{% for a in none_ %}{% endfor %}", "{% for a in missing %}x{% else %}empty{% endfor %}",
    "{% for a in l %}{% if a == 1 %}{% continue %}{% endif %}{{ a }}{% endfor %}",
    "{% for a in l %}{% if a == 1 %}{% break %}{% endif %}{{ a }}{% else %}e{% endfor %}",
    "{% for a in l %}{% for b in ls %}{% if b == 'A' %}{% break %}{% endif %}{{ a }}{{ b }}{{ loop.index }} {% endfor %}{{ loop.index }};{% endfor %}",
    "{% break %}", "{% macro m() %}{% for a in l %}{{ a }}{% break %}{% endfor %}{% endmacro %}{{ m() }}",
    "{% for n in tree recursive %}({{ n.v }}@{{ loop.depth }}{{ loop(n.c) }}){% endfor %}",
    "{% for n in tree %}{{ loop(n.c) }}{% endfor %}",
    "{% for a in l %}{% set last = a %}{{ last }}{% endfor %}{{ last }}",
    "{% set ns = namespace(total=0) %}{% for a in l %}{% set ns.total = ns.total + a %}{% endfor %}{{ ns.total }}{{ ns }}",
    "{% set ns = namespace() %}{% set ns.a, b = 1, 2 %}{{ ns.a }}{{ b }}{% set ns['x'] = 1 %}",
    "{% set d.a = 1 %}", "{% set a = 1 %}{% set a.b = 2 %}",
    "{% set a = 1 %}{% if true %}{% set a = 2 %}{% endif %}{{ a }}{% for z in [1] %}{% set a = 3 %}{% endfor %}{{ a }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set a, b = b, a %}{{ a }}{{ b }}{% set (c, d2) = 'xy' %}{{ c }}{{ d2 }}",
    "{% set a, b = [1] %}", "{% set a = %}", "{% set 1 = 2 %}", "{% set a = 1, 2 %}{{ a }}",
    "{% set x %}a {{ i }} b{% endset %}[{{ x }}]{{ x|length }}",
    "{% set x | upper | replace('A', 'z') %}abc{% endset %}{{ x }}",
    "{% for z in [1, 2] %}{% set y %}{{ z }}{% if z == 2 %}two{% endif %}{% endset %}{{ y }};{% endfor %}{{ y }}",
    "{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }};{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=5, a=4) }}{{ m() }}{{ m }}{{ m.name }}{{ m.arguments }}",
    "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{% endmacro %}{{ m(z=2) }}",
    "{% macro m(a, b) %}{% endmacro %}{{ m(1, a=2) }}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, k=3) }}{{ m() }}",
    "{% macro m(a) %}{{ a }}{{ varargs|join('-') }}{{ kwargs.x }}{% endmacro %}{{ m(1, 2, 3, x=4) }}{{ m(*[1, 2], **{'x': 5}) }}",
    "{% macro m(x) %}<{{ caller(x) }}{{ caller('b') }}>{% endmacro %}{% call(v) m('a') %}{{ v }}!{{ i }}{% endcall %}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}", "{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}",
    "{% macro m() %}[{% if caller %}{{ caller() }}{% endif %}]{% endmacro %}{{ m() }}{% call m() %}y{% endcall %}",
    "{% call s.upper() %}{% endcall %}", "{% call i %}{% endcall %}",
    "{% macro f(n) %}{% if n > 1 %}{{ n }},{{ f(n - 1) }}{% else %}1{% endif %}{% endmacro %}{{ f(5) }}",
    "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% macro outer(a) %}{% macro inner(b) %}{{ a }}{{ b }}{% endmacro %}{{ inner(1) }}{{ inner(2) }}{% endmacro %}{{ outer('x') }}{{ inner }}",
    "{% set g = 1 %}{% macro m() %}{{ g }}{% set g = 5 %}{{ g }}{% endmacro %}{{ m() }}{{ g }}",
    "{% macro m() %}{{ later }}{% endmacro %}{% set later = 1 %}{{ m() }}",
    "{% macro m(a, a) %}{% endmacro %}", "{% macro m(a=1, b) %}{% endmacro %}", "{% macro m(caller) %}{{ caller }}{% endmacro %}",
    "{% filter upper %}abc {{ s }}{% endfilter %}{% filter replace('a', 'b')|upper %}aaa{% endfilter %}",
    "{% filter nope %}{% endfilter %}", "{% if false %}{{ x|nope }}{% endif %}ok", "{% if true %}{{ x|nope }}{% endif %}",
    "{{ x|nope if false else 'ok' }}", "{% if false %}{% for a in l %}{{ a|nope }}{% endfor %}{% endif %}",
    "{% if x is nope %}{% endif %}", "{% if false and x is nope %}a{% else %}b{% endif %}",
    "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}", "{% with %}{% set z = 1 %}{{ z }}{% endwith %}{{ z }}",
    "{% set a = 5 %}{% with a = 1, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% raw %}{{ x }} {% if %} {# #}{% endraw %}", "a\n  {% raw -%}  \n x {%- endraw %}  \nb", "{% raw %}unclosed",
    "{# comment #}a{# {{ x }} {% if %} #}b{#- c -#} d {# unclosed", "a {#- c -#} b\n {# c #} \nd", "{##}a{#-#}b{#+ c +#}\nd",
    "  {% if true %}\n    x\n  {% endif %}\n  y\n", "a\n\n{% if true -%}\n\n  b  \n\n{%- endif %}\n\nc", "a {%+ if true %} b {% endif +%}\n c",
    "x\n   {%- for a in l %}\n {{ a }}\n   {%- endfor %}\n\n", "\n\n{{ s }}\n\n", "{{- s -}}  \n x", "a   {{- s }}   {{ s -}}   b",
    "a\r\nb\rc\n{% if true %}\r\nd{% endif %}\r\n", "{% if true %}   \nx{% endif %}", "\t{% set a = 1 %}\t\nx", "x  {% set a = 1 %}\n  y",
    "{{ 'a\nb' }}{{ 'a\r\nb'|length }}", "{{\n s \n}}", "{%\nif\ntrue\n%}x{%\nendif\n%}", "{{ s }}\n", "\n", "", "plain { text } % # {", "{", "{ {", "a{",
    "{{ '}}' }}{{ '%}' }}{{ {'a': {'b': 1}}['a']['b'] }}{{ {'a':{}} }}", "{{ {} }}", "{{}}", "{% %}", "{%%}", "{{ s", "{% if true", "{% if true %}", "{% endif %}", "{% else %}",
    "{% for a in l %}{% endif %}", "{% nope %}", "{% if true %}{% endfor %}{% endif %}", "{% for %}{% endfor %}", "{% for a l %}{% endfor %}", "{% for 1 in l %}{% endfor %}", "{% for a.b in l %}{% endfor %}",
    "{% print i, s %}{% print(1) %}", "{% block b %}x{{ i }}{% endblock %}{% block c scoped %}y{% endblock c %}", "{% include 'x' %}", "{% import 'x' as y %}", "{% if false %}{% include 'x' %}{% endif %}ok",
    "{% autoescape false %}{{ html }}{% endautoescape %}", "{% if true: %}x{% endif %}", "{% for a in l: %}{{ a }}{% endfor %}",
    "{% for a in l %}{{ loop }}{% endfor %}", "{% for a in l recursive %}{{ a }}{% endfor %}", "{% for loop in l %}{{ loop }}{% endfor %}",
    "{% for a in l|sort %}{{ a }}{% endfor %}{% for a in 1, 2, 3 %}{{ a }}{% endfor %}{% for a in (1,) %}{{ a }}{% endfor %}",
    "{% for a in d|dictsort %}{{ a }}{{ a[0] }}{% endfor %}{% for g in people|groupby('age') %}{{ g.grouper }}:{{ g.list|length }}{{ g }} {% endfor %}{% for k, v in people|groupby('city') %}{{ k }}{% endfor %}",
    "{% set c = cycler('a', 'b', 'c') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.next() }}{% set j = joiner('|') %}{% for a in l %}{{ j() }}{{ a }}{% endfor %}",
    "{% set g = l|map('string') %}{{ g|list }}{{ g|list }}{% set h = l|select('odd') %}{{ h|first }}{{ h|list }}{% if l|select('gt', 99) %}true{% endif %}",
    "{% for a in l %}{% set outer = loop %}{% for b in ls %}{{ outer.index }}{{ loop.index }}{% endfor %}{% endfor %}",
    "{% for a in l %}{{ x }}{% set x = a %}{{ x }}{% endfor %}{{ x }}",
    "{% generation %}a{{ i }}{% set q = 1 %}{% endgeneration %}{{ q }}", "{% for a in l %}{% generation %}{{ a }}{{ loop.index }}{% endgeneration %}{% endfor %}",
    "{% for a in l %}{% generation %}{% break %}{% endgeneration %}{% endfor %}",
    "{% set x = 1 %}{% set x = x + 1 %}{{ x }}{% set s = s|upper %}{{ s }}{% set s %}{{ s }}!{% endset %}{{ s }}",
    "{% if s is string and s.startswith('Hell') and not s.endswith('x') %}{{ s[:4] ~ s[-1:] }}{% endif %}",
    "{%- set text = 'a</think>b</think>c' -%}{{ text.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') }}{{ text.split('</think>')|last }}",
    "{% for m in people[::-1] %}{% set index = (people|length - 1) - loop.index0 %}{{ index }}{{ m.name }}{% endfor %}",
    "{% if true %}{% if false %}{% else %}{% if true %}deep{% endif %}{% endif %}{% endif %}",
    "{%if i==7%}tight{%endif%}{{s}}{{-s-}}{%-if true-%} x {%-endif-%}",
]

CORPUS = ["{{ %s }}" % line for line in EXPRESSIONS.split("\n") if line.strip()] + BLOCKS

_NAMES = ["i", "n", "zero", "x", "t", "f", "none_", "s", "u", "blank", "empty", "html", "l", "ls", "mixed", "d", "people",
          "missing", "nested.k", "nested.k.l", "d.a", "people[0].name", "digits"]
_CONSTANTS = ["0", "1", "-2", "3", "2.5", "-0.5", "'a'", "'l'", "' x '", "''", "true", "false", "none", "[]", "[1, 'a']",
              "(1, 2)", "{'a': 1}", "'%s'", "'é🙂'"]
_BINARY = ["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]
_FILTERS = ["upper", "lower", "title", "capitalize", "trim", "length", "list", "first", "last", "reverse|list", "sort", "unique|list",
            "join", "join('-')", "string", "int", "float", "abs", "round", "round(1)", "default('d')", "default('d', true)",
            "tojson", "tojson(indent=1)", "map('string')|list", "select|list", "reject|list", "sum", "min", "max",
            "replace('l', 'L')", "indent(2)", "truncate(5)", "wordcount", "batch(2)|list", "slice(2)|list", "items|list",
            "dictsort", "select('string')|list", "map(attribute='name')|list", "selectattr('age')|list", "center(9)",
            "striptags", "urlencode", "filesizeformat", "attr('x')", "count"]
_TESTS = ["defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "mapping", "iterable", "sequence",
          "true", "false", "odd", "even", "lower", "upper", "eq 1", "in [1, 'a']", "divisibleby 2", "gt 1", "callable"]
_METHODS = [".upper()", ".strip()", ".split()", ".split('l')", ".replace('l', 'L')", ".startswith('H')", ".find('l')",
            ".count('l')", ".title()", ".keys()|list", ".items()|list", ".get('a')", ".get('zz', 1)", ".index(1)", ".join(ls)",
            ".isdigit()", ".isalpha()", ".splitlines()", ".lower()", ".rsplit('l', 1)", ".zfill(9)", ".partition('l')",
            ".format(1, 2)", ".lstrip('H')", ".endswith('d')"]
_SUBSCRIPTS = ["[0]", "[-1]", "[1:]", "[::-1]", "[:2]", "['a']", "[::2]", "[-2:]", ".name", "[1:-1]"]


def _expression(generator, depth):
    if depth <= 0 or generator.random() < 0.1:
        return generator.choice(_NAMES if generator.random() < 0.6 else _CONSTANTS)
    kind = generator.randrange(11)
    inner = lambda: _expression(generator, depth - 1)  # noqa: E731
    if kind < 3:
        return f"{inner()} {generator.choice(_BINARY)} {inner()}"
    if kind == 3:
        return f"({inner()} {generator.choice(_BINARY)} {inner()})"
    if kind < 6:
        return f"({inner()})|{generator.choice(_FILTERS)}"
    if kind == 6:
        return f"({inner()}){generator.choice(_METHODS)}"
    if kind == 7:
        return f"({inner()}){generator.choice(_SUBSCRIPTS)}"
    if kind == 8:
        return f"({inner()}) is {generator.choice(['', 'not '])}{generator.choice(_TESTS)}"
    if kind == 9:
        return f"({inner()} if {inner()} else {inner()})"
    return generator.choice([f"not {inner()}", f"-{inner()}", f"[{inner()}, {inner()}]", f"{{'k': {inner()}}}", f"({inner()},)"])


def random_template(generator):
    shape = generator.randrange(6)
    expression = _expression(generator, generator.randint(1, 3))
    if shape < 3:
        return "{{ %s }}" % expression
    if shape == 3:
        return " {%% if %s %%}\n yes\n {%%- else %%} no {%% endif %%}\n|" % expression
    if shape == 4:
        return "{%% for q in %s %%}{{ loop.index }}{{ q }}{%% if not loop.last %%},{%% endif %%}{%% else %%}-{%% endfor %%}" % expression
    return "{%% set v = %s %%}{{ v }}{{ v is defined }}{{ v|tojson }}" % expression
