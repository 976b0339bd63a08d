"""Stories of those who wait: a garden, and a fable about a boast."""

from gnano.data.synthetic.grammar import table
from gnano.data.synthetic.plots import Plot

GARDEN = Plot(
    "[{Hero}'s Garden|The Garden of {Hero}|Waiting for {CROP}|A Handful of Seeds]",
    """
<opening>
? <trait>
<oneday> {elder} gave {him} a handful of seeds. "[Plant them|Put them in the earth]," said {elder},
  "and be patient."
| In spring {hero} found a small bag in the shed. "{CROP}," said the label.
{Hero} dug the soil, [pulled out the weeds|raked it smooth] and planted the seeds in [a straight
  row|neat rows|a circle].

Every [day|morning|evening] {he} [came|went] to see if anything was growing. [Nothing|Only bare
  earth|Still no {crop}]!
| The first day {hero} saw nothing, and the second day {he} saw nothing, too.
"[Are they bad seeds|Why does it take so long]?" {he} asked {friend.intro}.
"[Wait a little|Seeds work in secret]," said {friend}. "[They are growing roots first|They have to
  drink first]<dear>."
Then, [after a week|after ten days|one rainy morning], there were [tiny|small] green [leaves|tips]
  in the soil. {Hero} was <glad>.
But [soon|in early summer] there was trouble: {trouble}.
| {Hero}'s {crop} grew and grew. Then one day {hero} saw that {trouble}.

"[All my work is lost|My poor plants]!" [cried|sighed] {hero}.
{Friend} [scratched {friend.his} head|thought about it]. "[I know what to do|We can mend that],"
  said {friend}. They {remedy}.
| {Hero} asked {elder} for advice. Then {hero} and {friend} {remedy}.
It was hard work for {hero} and {friend}, but [it helped|the {crop} grew strong again|the next day
  the {crop} looked better].

[At the end of summer|In August|When the days grew shorter] there were {crop} [everywhere|in every
  row|enough for all].
| And then came the harvest: a whole basket of {crop}!
They made {dish} and invited {elder}. "[I have never eaten anything better|This tastes of
  patience]," said {elder}.
| {Hero} brought {elder} the [first|best] of the {crop}, and together they made {dish}.
? {Hero} kept a few seeds in a [paper bag|tin box] for the next spring.
? <ending>
""",
    table("""
crop; trouble; remedy; dish; dream
carrots; a rabbit had nibbled the leaves; built a low fence of sticks; carrot soup; the row of
  carrots
tomatoes; the stems bent down to the ground; tied each plant to a stick; a big pot of tomato sauce;
  the red tomatoes
pumpkins; the leaves hung down in the heat; carried water from the stream each evening; pumpkin pie;
  the biggest pumpkin
beans; snails had eaten holes in the leaves; collected the snails and carried them to the wood; bean
  stew; the tall beans
strawberries; birds were picking at the fruit; hung up strips of cloth that danced in the wind;
  strawberry jam; the sweet strawberries
sunflowers; a storm had pushed the tall stems over; pushed strong poles into the earth and tied the
  stems to
  them; a bowl of roasted seeds; the golden sunflowers
peas; the thin plants had nothing to climb on; stretched strings between two poles; pea soup; the
  green peas
potatoes; weeds had covered the whole bed; pulled out the weeds, root by root; baked potatoes; the
  potato fire
"""),
    season="summer",
)

BOAST = Plot(
    "[The Proud {BOASTER}|The {BOASTER} and the {QUIET}|A Fable|The Patient {QUIET}]",
    """
[Once|Long ago], in {home}, there lived {a boaster} who was very proud of {boast}.
| {A boaster} and {a quiet} [once lived|lived long ago] in {home}. The {boaster} was proud of
  {boast}.
Day after day the {boaster} [talked of nothing else|told everyone about it]. "[Nobody|No one here]
  is as {good} as I am!" said the {boaster}.
? {Hero}, {friend} and the other animals were tired of hearing [it|about {boast}].

<oneday> the {boaster} met {a quiet} [on the path|at the spring|near the old bridge].
| <oneday> the {quiet} was working quietly when the {boaster} came by.
"You are so {bad}," [laughed|said] the {boaster}. "[I feel sorry for you|I do not envy you, dear
  {quiet}]!"
| "Just look at you, {quiet}!" said the {boaster}. "[I would never want to be|I could not bear to
  be] so {bad}."
"[That may be|It is true]," said the {quiet}, "but {reply}."
"[Then let us see|Prove it], {quiet}!" said the {boaster}. "{Dare}"
? <sky>

So it was agreed, and {friend} the {judge} was to be the judge.
| {Friend}, {hero} and all the others came to watch. {Friend} the {judge} gave the sign.
The {boaster} {first}. | At first all went well for the {boaster}. He {first}.
The {quiet} did not hurry. She {second}. | Meanwhile the {quiet} {second}.
Then {turn}.
And so, [to everybody's surprise|as {friend} announced], the {quiet} {won}.

The {boaster} [hung his head|was silent for once]. "[You were right, dear {quiet}|I have been
  foolish]," said the {boaster}.
| "I do not understand how [you did it|that could happen]," said the {boaster}. "[Step by step|With
  patience],"
  answered the {quiet}.
"[Come|Never mind]," said the {quiet} kindly. "[Sit down and eat with {friend} and me|We can all
  learn something, even {a boaster}]."
| The {quiet} did not laugh at him. She [shared her supper with the {boaster}|asked the {boaster} to
  sit down].
[The lesson is|And so we learn|Remember]: {moral}.
""",
    table("""
boaster; quiet; boast; good; bad; reply; dare; first; second; turn; won; moral; judge; dream
hare; snail; his long legs; fast; slow; I always get where I am going; First one at the mill wins!;
  ran ahead and lay down in the clover for a nap; crept along and did not stop once; the sun went
  down, and the sleeper woke up too late; reached the mill first; a slow start is better than a long
  nap; owl; the mill
peacock; sparrow; his bright tail; beautiful; plain; my brown feathers serve me well; Let us see
  whom everyone looks at tonight!; spread his tail and shone in the evening light; sat among the
  brown leaves; a fox came out of the wood, saw the bright tail and pulled out three feathers, but
  never noticed the little bird; came home without losing a feather; what is plain is often safe;
  crow; the brown leaves
ox; ant; his great strength; strong; weak; many small loads make a big heap; Whoever moves this sack
  of grain before dark wins!; pulled at the sack with one great jerk, but it tore on a nail, and he
  walked off in anger; carried one grain after another, with all her sisters; the moon came up and
  shone on an empty sack; had moved it all; patience moves what strength drops; goose; the empty
  sack
rooster; spider; his loud voice; loud; quiet; I speak with my work; Who can catch a fly first?;
  crowed so loudly that every fly flew off; spun a thin net between two twigs; three flies came by
  and were caught in the net; won; those who talk the most do not catch the most; toad; the silver
  net
wolf; tortoise; his sharp teeth; dangerous; harmless; my house goes with me; I will open your little
  house before noon!; bit and scratched until his teeth hurt; pulled in her head and waited; the
  clock struck twelve, and the shell had not a scratch; put out her head and walked away; who is
  well protected need not fight; raven; the round shell
"""),
    cast="animals",
)
