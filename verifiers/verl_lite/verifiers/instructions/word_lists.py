"""The word lists of the instruction kinds: function words, pronouns, verbs, names."""

STOP_WORDS = frozenset(
    """
    a about above after again against all am an and any are aren't as at be because been before being below
    between both but by can can't cannot could couldn't did didn't do does doesn't doing don don't down during
    each few for from further had hadn't has hasn't have haven't having he he'd he'll he's her here hers herself
    him himself his how i i'd i'll i'm i've if in into is isn't it it'd it'll it's its itself just let's ll me
    mightn't more most mustn't my myself needn't no nor not now o of off on once only or other our ours ourselves
    out over own re s same shan't she she'd she'll she's should should've shouldn't so some such t than that
    that'll that's the their theirs them themselves then there these they they'd they'll they're they've this
    those through to too under until up ve very was wasn't we we'd we'll we're we've were weren't what when where
    which while who whom why will with won won't would wouldn't y you you'd you'll you're you've your yours
    yourself yourselves d m
    """.split()
)
PRONOUNS = frozenset(
    """
    i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her
    hers herself it its itself they them their theirs themselves
    """.split()
)
NAMES = frozenset(  # those that the instruction lists
    """
    Emma Liam Sophia Jackson Olivia Noah Ava Lucas Isabella Mason Mia Ethan Charlotte Alexander Amelia Benjamin
    Harper Leo Zoe Daniel Chloe Samuel Lily Matthew Grace Owen Abigail Gabriel Ella Jacob Scarlett Nathan
    Victoria Elijah Layla Nicholas Audrey David Hannah Christopher Penelope Thomas Nora Andrew Aria Joseph Claire
    Ryan Stella Jonathan
    """.split()
)
_VERBS = frozenset(
    """
    accept achieve act adapt add adjust admire admit adopt advance advise agree aim allow alter analyze analyse
    announce answer apologize appear apply appreciate approach argue arise arrange arrive ask assemble assert
    assess assign assist assume attach attempt attend avoid awaken balance be bear beat become begin behold
    believe belong bend bet bind bite blend blow boil borrow break breathe bring broadcast browse build burn
    buy calculate call calm can care carry carve catch cause celebrate change charge chase check choose cite
    claim clarify classify clean clear climb close collect combine come comfort commit communicate compare
    compete complete compose compute conceive concentrate conclude conduct confirm confront connect conquer consider consist
    construct consult contact contain continue contribute control convert convince cook cope copy correct count
    cover craft create cross cultivate cut dance dare deal decide declare decode dedicate define deliver demand
    demonstrate deny depend derive describe deserve design destroy detect determine develop devote die differ
    dig diminish direct disagree disappear discover discuss display dive divide do doubt draw dream dress drift
    drink drive drop earn eat educate elevate eliminate embark embrace emerge emphasize employ empower enable
    encounter encourage end endure engage enhance enjoy ensure enter envision escape establish estimate evaluate
    evolve examine exceed exclude excuse exercise exist expand expect experience experiment explain explore
    express extend extract face facilitate fail fall fear feed feel fetch fight figure fill find finish fix flee
    float flow fly focus fold follow forbid force foresee forget forgive form foster freeze fulfill gain gather
    gaze generate get give glance go govern grab grant grasp greet grind grow guarantee guard guess guide handle
    hang happen harness hate have heal hear help hesitate hide highlight hit hold honor hope host hunt identify
    ignite ignore illustrate imagine implement imply import improve include incorporate increase indicate
    influence inform inspect inspire install integrate intend interpret introduce invent invest investigate
    invite involve isolate join journey judge jump justify keep kick kill kneel knit know lack land laugh launch
    lay lead leap learn leave lend let leverage lie lift light like limit list listen live load locate lock look
    lose love lower maintain make manage map mark master match maximize may mean measure meet mention merge
    might mind minimize miss mix modify monitor move multiply must name navigate need neglect negotiate note
    notice nurture obey observe obtain occur offer open operate opt optimize order organize ought outline
    overcome owe own paint park participate pass pause pay perform permit persist persuade picture place plan
    plant play please plot point ponder pose possess post practice praise pray predict prefer prepare present
    preserve press pretend prevent print prioritize proceed produce promise promote propose protect prove
    provide publish pull purchase pursue push put question quit raise reach react read realize rearrange recall
    receive recognize recommend reconsider record reduce refer reflect refuse regard register regret reject
    relate relax release rely remain remember remind remove render repair repeat replace reply report represent
    request require rescue research resist resolve respect respond rest restore retain return reveal review
    rewrite ride ring rise risk roll run rush save say scan search secure see seek seem select sell send separate
    serve set settle shake shall shape share shed shift shine shoot should show shut sign simplify sing sit skip
    sleep slide smell smile soar solve sort speak specify spell spend split spread spring stand start state stay
    steal step stick stop strengthen stretch strike strive structure struggle study submit substitute succeed
    suffer suggest summarize supply support suppose survive sustain swear sweep swim switch take talk target
    taste teach tear tell tend test thank think thrive throw touch trace track trade train transform translate
    travel treat trust try turn uncover understand undertake unite unleash unlock unveil update upgrade use
    utilize validate value vanish vary verify view visit visualize vote wait wake walk wander want warn wash
    watch wear weave weigh welcome will win wish witness wonder work worry would wrap write yield
    """.split()
)
_IRREGULAR = frozenset(
    """
    am is are was were been being has had did does done went gone saw seen knew known took taken gave given came
    made said told found left kept thought bought brought built began begun broke broken chose chosen drew drawn
    felt fell fallen got gotten grew grown held led lost meant met paid ran sat sold sent spoke spoken stood
    taught understood won wrote written could can't don't won't let's isn't aren't doesn't didn't
    """.split()
)


def is_verb(word: str) -> bool:
    """Whether an English word is a form of a listed verb.

    >>> [is_verb(word) for word in ("Consider", "running", "tries", "made", "The", "table")]
    [True, True, True, True, False, False]
    """
    word = word.lower().replace("’", "'")
    if word in _VERBS or word in _IRREGULAR:
        return True
    for ending, puts in (("ing", ("", "e")), ("ed", ("", "e")), ("es", ("", "e")), ("s", ("",))):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) > 1:
            stems = {stem + put for put in puts} | {stem[:-1] + "y" if stem[-1] == "i" else stem}
            if stem[-1] == stem[-2]:
                stems.add(stem[:-1])
            if stems & _VERBS:
                return True
    return False
