"""Words of which one says something else than another, however near their meanings lie: a table made by hand.

Vectors of words put *rise* beside *fall* and *Monday* beside *Tuesday*, since both stand in the same sentences. Two
answers of which one has a word of one side and the other a word of another side are no paraphrases.
"""

from preflow.data.quality.wording.synonyms import MEANING, with_endings

#: One group a line, its sides parted by ``|``; the first letter says which endings its words take.
_GROUPS = """
v rise increase climb grow gain jump | fall drop decrease decline sink shrink lose
v approve accept allow permit agree pass | reject refuse deny forbid ban disagree fail decline
v open | close shut
v buy purchase | sell
v lend | borrow
v win | lose
v add include | remove omit exclude subtract delete
v start begin | stop end finish
v enter arrive | exit depart
v raise lift | lower
v heat warm | cool freeze chill
v push | pull
v accelerate | slow
v remember | forget
v save keep | spend waste delete
v strengthen improve help | weaken worsen harm hurt damage
v support | oppose
v encourage recommend | discourage
v enable activate | disable deactivate
v attract | repel
v expand widen | contract narrow
v multiply | divide
v praise | blame criticize
v love like enjoy | hate dislike
v succeed | fail
v import | export
v send | receive
v ask | answer
v lock | unlock
v install | uninstall
v praise | insult
v cause | prevent cure
a high tall | low short
a hot warm | cold cool
a big large great long | small little short
a good great excellent | bad poor awful terrible
a safe harmless | dangerous harmful risky unsafe toxic
a easy simple | hard difficult tough
a early | late
a fast quick | slow
a strong | weak
a heavy | light
a old | new young
a rich | poor
a dry | wet
a clean | dirty
a cheap | expensive dear
a full | empty
a hard firm | soft
a loud noisy | quiet silent
a wide broad | narrow
a thick | thin
a deep | shallow
a bright | dark dim
a major | minor
a positive | negative
a possible | impossible
a legal lawful | illegal unlawful
a common frequent usual | rare uncommon unusual
a public | private
a true right correct | false wrong incorrect
a alive | dead
a male | female
a healthy | unhealthy sick ill
a necessary required mandatory compulsory | unnecessary optional voluntary
a certain sure definite | probable likely possible uncertain unclear
a likely | unlikely
a permanent | temporary
a free | paid
a guilty | innocent
a raw | cooked
a acidic | alkaline basic
a internal inner | external outer
a horizontal | vertical
a sweet | salty sour bitter
a wild | tame
a polite kind | rude
n teaspoon | tablespoon | cup | pint | litre liter | gallon | millilitre milliliter | ounce
n gram | kilogram kilo | pound | ton | ounce
n millimetre millimeter | centimetre centimeter | metre meter | kilometre kilometer | mile | inch | yard
n second | minute | hour | day | week | month | year | decade | century
n euro | dollar | cent | yen | franc | rupee
n celsius | fahrenheit | kelvin
n volt | watt | amp ampere | ohm
n mother mom mum | father dad | sister | brother | son | daughter | uncle | aunt | grandmother | grandfather
n man | woman
n boy | girl
n king | queen
n husband | wife
n profit gain | loss
n friend | enemy
n success | failure
n advantage benefit | disadvantage drawback
n summer | winter | spring | autumn
n breakfast | lunch | dinner
n morning | noon | afternoon | evening | night | midnight
n top | bottom
n front | back rear
n half | third | quarter | fifth | tenth
n landlord | tenant
n buyer | seller
n employer | employee
n doctor | patient
n artery | vein
n import | export
n supply | demand
n virus | bacterium | fungus
n protein | fat | carbohydrate
n red | blue | green | yellow | black | white | brown | pink | purple | orange | grey gray
w always | sometimes | often usually mostly generally
w all every each everyone everybody everything | most | some several few
w must shall | may might could
w before | after
w above over | below under beneath
w left | right
w north | south | east | west
w inside | outside
w up upward upwards | down downward downwards
w more | less fewer
w first | last final finally
w first | second | third | fourth | fifth
w monday | tuesday | wednesday | thursday | friday | saturday | sunday
w january | february | march | april | june | july | august | september | october | november | december
w bacteria | fungi | viruses
w men | women
w definitely certainly surely undoubtedly absolutely clearly | probably likely maybe perhaps possibly apparently
w today | yesterday | tomorrow
w yes | no
w he his him | she her
w rose grew climbed increased | fell shrank sank dropped decreased declined
w won | lost
w bought | sold
w hotter warmer | colder cooler
w lent | borrowed
w better best | worse worst
w only just | also too
w immediately soon now | later
w together | separately apart alone
"""
_ENDINGS = {"v": ("", "s", "ed", "ing"), "a": ("", "er", "est", "ly"), "n": ("", "s"), "w": ("",)}


def _table() -> dict[str, tuple[tuple[int, int], ...]]:
    """Each word to the groups in which it stands, and its side there."""
    found: dict[str, set[tuple[int, int]]] = {}
    for group, line in enumerate(_GROUPS.strip().splitlines()):
        kind, sides = line[0], line[1:].split("|")
        for side, words in enumerate(sides):
            for word in words.split():
                for form in with_endings(word, _ENDINGS[kind]):
                    found.setdefault(MEANING.get(form, form), set()).add((group, side))
    return {word: tuple(sorted(places)) for word, places in found.items()}


_SIDES = _table()
#: Beginnings that turn a word into its contrary: *legal*, *illegal*.
_CONTRARY = ("un", "in", "im", "il", "ir", "dis", "non", "mis")


def exclude_each_other(left: set[str], right: set[str]) -> bool:
    """Whether a word of the one set and a word of the other stand on different sides of a group.

    Args:
        left: Words that stand in one text alone, each in the one form of its meaning (``synonyms.MEANING``).
        right: Words that stand in the other text alone.
    """
    for words, others in ((left, right), (right, left)):
        if any(f"{before}{word}" in others for word in words for before in _CONTRARY):
            return True
        if any(word.endswith("ful") and f"{word[:-3]}less" in others for word in words):
            return True
    ours, theirs = ({place for word in words for place in _SIDES.get(word, ())} for words in (left, right))
    groups = {group for group, _ in ours} & {group for group, _ in theirs}
    # A text that has words of several sides of a group speaks of both.
    return any(
        {side for of, side in ours if of == group}.isdisjoint(side for of, side in theirs if of == group)
        for group in groups
    )
