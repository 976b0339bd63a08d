"""Stories of fear, of a long way, of a strange noise in the night."""

from gnano.data.synthetic.grammar import table
from gnano.data.synthetic.plots import Plot

FEAR = Plot(
    "[{Hero} Is Brave|Afraid of {FEAR}|One Small Step|{Hero} and {FEAR}]",
    """
<opening>
{Hero} could do many things, but {he} was afraid of {fear}.
| There was only one thing that {hero} did not like, and that was {fear}.
| Nobody knew it, but {hero} was [terribly|very] afraid of {fear}.
Whenever the others {others}, {he} [stayed behind|made an excuse|looked at {his} feet].
| So when the others {others}, {hero} only watched.

<oneday> {friend.intro} asked {him}, "[Will you come with us|Why do you never join us]?"
{Hero}'s [face grew hot|knees began to shake|heart beat fast]. "I am afraid of {fear}," {he}
  [whispered|said at last].
| At first {hero} said nothing. Then {he} told {friend} the truth about {fear}.
{Friend} did not laugh. "[I was afraid once, too|Everyone is afraid of something]," said {friend}.
  "[We will go slowly|Let us
  try it together|I will stay beside you]."
? {Elder} nodded. "[To be brave does not mean to have no fear|A big thing is only many small
  things]," said
  {elder}.

[On the first day|First] {hero} only {one}.
[The next day|On the second day|Then] {he} {two}. [To {hero} it was not so bad|{Hero} was still
  afraid, but less than before].
? "[You are doing well|Look how far you have come]!" [called|said] {friend}.
[And at last|After a week|Finally], {hero} {three}.
| Then came the day when {hero} {three}. [{Hero} could hardly believe it|Even {friend} was
  surprised]!

"I did it!" [cried|shouted] {hero}. <he> was <glad>.
| {Hero} laughed out loud. "[It is fun|I am still a little afraid, but I can do it]<mate>!" {he}
  said.
<thanks>
| <ending>
{Lesson}
? Now, when someone else is afraid of {fear}, {hero} says, "[Take my hand|We will go slowly]."
""",
    table("""
fear; others; one; two; three; lesson; dream
deep water; swam in the lake; put {his} toes into the water; walked in up to {his} knees; swam all
  the way to the little island; The lake was as deep as before, but {hero} had grown.; the little
  island
the dark; told stories by starlight; sat on the doorstep while the sun went down; walked to the gate
  with a lantern; blew out the lantern and counted the stars; The dark, {he} had learned, is full of
  small lights.; the stars
thunder; counted the flashes in a storm; listened to the rain from under a blanket; sat at the
  window and counted between flash and thunder; stood at the open door while the thunder rolled
  away; A loud noise, {he} had learned, is still only a noise.; the storm
high places; climbed the lookout tower; stood on a low wall; climbed to the first landing; stood at
  the very top and waved; From above, even big troubles look small.; the view from the tower
big dogs; played with Bruno, the farmer's dog; watched Bruno from behind the gate; let Bruno smell
  {his} hand; threw a stick, and Bruno brought it back; Some big things, {hero} found, are very
  gentle.; good old Bruno
singing in front of others; sang at the fire; sang alone to the trees; sang a short song to
  {friend}; sang for everybody at the summer feast; A song is like bread: it is better when it is
  shared.; the summer feast
the narrow bridge; ran across the bridge to the berry bushes; put one foot on the boards; walked to
  the middle, holding the rope; ran across and picked the ripest berries; The bridge had not
  changed, but {hero} had.; the berries beyond the bridge
the icy slope; raced down the hill on sleds; sat on a sled that did not move; slid down the lowest
  part; raced from the very top with a shout; The slope was steep, but courage grows by use.; the
  long ride down
"""),
)

ERRAND = Plot(
    "[The Long Way Round|{Hero} Carries {a LOAD}|{Hero} and the {BLOCK}|An Errand for {ELDER}]",
    """
<opening>
<trait>
<oneday> {elder} called {him}. "Please take this {load} to {friend}," {elder.he} said. "[{Friend.he}
  needs it before
  evening|But be back before dark|And do not stop on the way]."
| <oneday> {elder} gave {him} {a load}. "Bring this to {friend}, who lives {far}," {elder.he} said.

{Hero} set off [at once|with quick steps|whistling]. <sky>
| "I will," [promised|said] {hero}, and {he} took the path at once.
? [Halfway|Behind the mill|After a mile] {he} [stopped to rest|ate an apple|greeted a scarecrow],
  but not for long.
Then {he} came to {a block}. {Problem}
| But soon the way ended at {a block}. {Problem}
"[What shall I do|What now|How can I get past this {block}]?" {hero} [said aloud|thought]. <he> was
  <sad>.
| {Hero} did not want to turn back. {Friend} was waiting for the {load}!

<he> sat down and looked [around|closely]. Then {hero} had an idea. {Idea}
| "[There is always a way|Think]," {he} told {himself}. {Idea}
? It took [a long time|all {his} strength|three tries], but {he} did not give up.
And so {he} came [safely|at last] to the other side. [The {load} was safe, too|Not even the {load}
  got wet].
| [{Hero} could have danced|{Hero} laughed aloud]. With the {load} in {his} arms, {hero} hurried on.

{Friend} [opened the door|was waiting at the window]. "[You came after all|I thought nobody would
  come today]<dear>!" {friend.he} said.
"{A block} was in my way," said {hero}, "but [I found a way round|I thought of a way]."
| {Hero} put the {load} on the table and told {friend} about the {block}.
{Friend} gave {him} [a cup of warm milk|a slice of bread with jam|a bowl of soup] and
  [listened|laughed with surprise].
? "[Slow and clever is better than fast|Good that you did not turn back]," said {elder} that
  evening.
? <ending>
""",
    table("""
load; block; problem; idea; far; dream
basket of eggs; broken bridge; Two of its boards were missing, and the water was wild.; {He} laid a
  fallen branch across the gap and crept over it, inch by inch.; beyond the river; the broken bridge
letter; flooded field; The water stood as high as {his} knees.; {He} walked along the top of the
  stone wall, with arms spread like wings.; behind the hill; the wall above the water
jar of medicine; fallen tree; It lay right across the path, and it was too big to climb.; {He}
  crawled under it, where a fox had dug a hollow.; at the other end of the wood; the tunnel under
  the tree
loaf of bread; herd of cows; They filled the whole lane and did not move.; {He} rang the bell of the
  first cow, and the others walked after her.; past the pastures; the cows in the lane
bag of seeds; locked gate; No one answered when {he} knocked.; {He} followed the fence until {he}
  found a place where a board was loose.; behind the great park; the loose board
lantern; thick fog; {He} could not even see {his} own feet.; {He} followed the sound of the church
  bell, step by step.; at the harbour; the bell in the fog
pot of soup; steep, icy hill; With every step {he} slid back down.; {He} scattered sand on the ice
  and went up sideways like a crab.; on top of the hill; the icy hill
bundle of firewood; rope bridge; It swung in the wind, and the bundle was heavy.; {He} made three
  small bundles and carried them over one by one.; across the gorge; the swinging bridge
"""),
)

NOISE = Plot(
    "[A Noise in the Night|The {SOUND}|What Was That?|{Hero} Hears {A SOUND}]",
    """
<opening>
? <trait>
One night, when everyone else was asleep, {hero} heard {a sound}. "{Noise}" it went.
| One evening {hero} went to bed early. In the middle of the night {a sound} woke {him}. "{Noise}"
It came from {where}. {Hero} [pulled the blanket up to {his} nose|sat up and listened|did not dare
  to move].
| "[What is that|Who is there]?" whispered {hero}. [The answer|It] came from {where}: "{Noise}"
? [Perhaps it was a monster|Maybe it was a ghost|It might be a robber], {hero} thought.

In the morning {he} told {friend.intro} about the {sound}.
"[I think it is|Perhaps it is|It must be] {guess}," said {friend}. "[Let us find out|Tonight we will
  watch together]<dear>."
[When night came|After dark|That night], they waited [behind the door|on the stairs|under a blanket]
  with a small lamp.
? [The clock ticked|An owl called|The moon rose|A dog barked far away], and {friend} yawned.
Then it came again: "{Noise}" | {Hero} and {friend} did not wait long. "{Noise}" [There it was, the
  {sound}|The {sound} began again]!
{Hero} [held {friend}'s hand|took a deep breath] and [lifted the lamp|opened the door a crack].
| Side by side, on [soft|quiet] feet, they crept to {where}.

It was not {guess}. It was only {truth}!
| And what did {hero} and {friend} see? There, in the light of the lamp, was {truth}.
{Hero} looked at {friend}, and they [began to laugh|laughed until their sides hurt].
| "[So that is our monster|And I was afraid of that]!" said {hero}, and {he} felt <glad>.
{Fix} | {Fix} [After that, the night was quiet for {hero}|Then {hero} and {friend} went back to
  bed].
? "[A noise is only frightening until you know its name|Fear is small when you shine a light on
  it]," said {elder}.
<lastly>
""",
    table("""
sound; noise; where; guess; truth; fix; dream
tapping sound; Tap, tap, tap!; the window; a bony finger; a branch of the pear tree, moving in the
  wind; In the morning they tied the branch back with a string.; the branch at the window
scratching sound; Scritch, scratch!; the kitchen; a thief; a hungry mouse with a crust of bread;
  They gave the mouse a bit of cheese and carried it out to the field.; the mouse with the crust
deep hum; Hummm, hummm!; the chimney; a giant who was humming; the wind, blowing across the open
  chimney; They closed the little door of the stove.; the humming chimney
splashing sound; Plip, plop!; the cellar; a water monster; a drop that fell from a pipe into a pail;
  In the morning they mended the pipe.; the drops in the cellar
rattling sound; Rattle, rattle!; the roof; somebody with a chain; a loose tile that moved whenever
  the wind blew; The next day they fastened the tile.; the loose tile
creaking sound; Creak, creak!; the stairs; a ghost; an old rocking chair by the open window; They
  shut the window, and the chair stood still.; the rocking chair
snoring sound; Rrrr, pssss!; the garden; a sleeping bear; a hedgehog, fast asleep in a heap of
  leaves; They covered it with more leaves and tiptoed away.; the hedgehog in the leaves
clinking sound; Clink, clink!; the shelf; an army of tiny knights; a row of cups that shook when the
  night train passed; They put a cloth between the cups.; the dancing cups
"""),
)
