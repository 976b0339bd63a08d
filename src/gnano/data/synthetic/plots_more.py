"""More of what happens in a story: errands, contests, strange noises, gardens and secrets."""

from gnano.data.synthetic.grammar import table
from gnano.data.synthetic.plots import Plot

ERRAND = Plot(
    "[The Long Way Round|{Hero} Carries {a LOAD}|{Hero} and the {BLOCK}|An Errand for {ELDER}]",
    """
<opening>
<trait>
<oneday> {elder} called {him}. "Please take this {load} to {friend}," {elder.he} said. "[{Friend.he} needs it before
  evening|But be back before dark|And do not stop on the way]."
| <oneday> {elder} gave {him} {a load}. "Bring this to {friend}, who lives {far}," {elder.he} said.

{Hero} set off [at once|with quick steps|whistling]. <sky>
| "I will," [promised|said] {hero}, and {he} took the path at once.
? [Halfway|Behind the mill|After a mile] {he} [stopped to rest|ate an apple|greeted a scarecrow], but not for long.
Then {he} came to {a block}. {Problem}
| But soon the way ended at {a block}. {Problem}
"[What shall I do|What now]?" {hero} [said aloud|thought]. {He} was <sad>.
| {Hero} did not want to turn back. {Friend} was waiting for the {load}!

{He} sat down and looked [around|closely]. Then {he} had an idea. {Idea}
| "[There is always a way|Think]," {he} told {himself}. {Idea}
? It took [a long time|all {his} strength|three tries], but {he} did not give up.
And so {he} came [safely|at last] to the other side. [The {load} was safe, too|Not even the {load} got wet].
| It worked! With the {load} in {his} arms, {hero} hurried on.

{Friend} [opened the door|was waiting at the window]. "[You came after all|I thought nobody would come today]!" {friend.he} said.
"{A block} was in my way," said {hero}, "but [I found a way round|I thought of a way]."
| {Hero} put the {load} on the table and told {friend} about the {block}.
{Friend} gave {him} [a cup of warm milk|a slice of bread with jam|a bowl of soup] and [listened|laughed with surprise].
? "[Slow and clever is better than fast|Good that you did not turn back]," said {elder} that evening.
? <ending>
""",
    table("""
load; block; problem; idea; far; dream
basket of eggs; broken bridge; Two of its boards were missing, and the water was wild.; {He} laid a fallen branch across the gap and crept over it, inch by inch.; beyond the river; the broken bridge
letter; flooded field; The water stood as high as {his} knees.; {He} walked along the top of the stone wall, with arms spread like wings.; behind the hill; the wall above the water
jar of medicine; fallen tree; It lay right across the path, and it was too big to climb.; {He} crawled under it, where a fox had dug a hollow.; at the other end of the wood; the tunnel under the tree
loaf of bread; herd of cows; They filled the whole lane and did not move.; {He} rang the bell of the first cow, and the others walked after her.; past the pastures; the cows in the lane
bag of seeds; locked gate; No one answered when {he} knocked.; {He} followed the fence until {he} found a place where a board was loose.; behind the great park; the loose board
lantern; thick fog; {He} could not even see {his} own feet.; {He} followed the sound of the church bell, step by step.; at the harbour; the bell in the fog
pot of soup; steep, icy hill; With every step {he} slid back down.; {He} scattered sand on the ice and went up sideways like a crab.; on top of the hill; the icy hill
bundle of firewood; rope bridge; It swung in the wind, and the bundle was heavy.; {He} made three small bundles and carried them over one by one.; across the gorge; the swinging bridge
"""),
)

CONTEST = Plot(
    "[The Great {EVENT}|{Hero} and the {EVENT}|The Day of the {EVENT}|Second Place]",
    """
<opening>
Every [year|summer|autumn] there was {a event}, and this time {hero} wanted to [take part|win].
| {Hero} had only one wish: to win the {event}.
{He} practised [every morning|each evening|day after day]. {Practice}
? "[You get better every day|Do not forget to rest]," said {elder}.

At last the day [came|was there]. <sky> {Friend.intro} [took part as well|wanted to win, too].
| Then came the day of the {event}. [The whole neighbourhood was there|Flags hung everywhere]. {Friend} stood next to {him}.
"[Good luck|May the best one win]," said {friend}. "[Good luck to you|And to you]," said {hero}.
It began well. {Start} | {Start} [Everyone cheered|{Hero} smiled].
But then {mishap}. | Suddenly {mishap}.

{Hero} could have [gone on|left {friend} there|thought only of the prize]. Instead {he} stopped and {help}.
| [For a moment|For one breath] {hero} thought of the prize. Then {he} turned and {help}.
"[Why did you stop|You could have won]!" said {friend}.
"[A prize is nice, but you are my friend|It would not be fun without you]," [said|answered] {hero}.
Someone else won the {event}, [and nobody minded|but the crowd cheered for the two friends].
| They did not win, but when they came in [together|side by side], [everyone clapped|the crowd cheered].

The judge gave them {prize}. "[For fair play|For the kindest deed of the day]," said the judge.
| {Elder} gave {him} {prize}. "[You won something better|I am proud of you]," said {elder}.
? {Hero} shared {prize} with {friend}, of course.
<ending>
""",
    table("""
event; practice; start; mishap; help; prize; dream
running race; {He} ran to the mill and back until {his} legs were strong.; {Hero} ran like the wind and was soon in front.; {friend} stumbled over a root and hurt {friend.his} foot; helped {friend.him} up; a bag of walnuts; the race
kite contest; {He} built three kites and chose the best.; {Hero}'s kite climbed higher than all the others.; {friend}'s line got caught in a tree; helped to free it; a ball of golden string; the kites in the sky
boat race; {He} rowed across the lake and back until {his} arms ached.; {Hero}'s boat shot away from the shore.; {friend}'s boat hit a stone and began to fill with water; pulled {friend.him} into {his} own boat; a little blue flag; the boat race
cooking contest; {He} cooked the same soup nine times.; {Hero}'s soup smelled wonderful.; {friend}'s pot tipped over, and everything ran out; gave {friend.him} half of {his} vegetables; a wooden ladle; the two soups
pumpkin show; {He} watered {his} pumpkin and talked to it.; {Hero}'s pumpkin was round and bright.; the wheel of {friend}'s cart broke, and {friend.he} could not bring {friend.his} pumpkin; carried it with {friend.him}; a packet of rare seeds; the two pumpkins
sandcastle contest; {He} learned how much water good sand needs.; {Hero}'s castle soon had five towers.; a big wave washed away half of {friend}'s castle; helped to build a wall against the sea; a shell as big as a hand; the castle by the sea
sled race; {He} waxed the runners and studied every bend.; {Hero} flew past the first bend.; {friend}'s sled tipped over in the deep snow; pulled {friend.him} out; a pair of warm mittens; the snowy race
"""),
)

NOISE = Plot(
    "[A Noise in the Night|The {SOUND}|What Was That?|{Hero} Hears {A SOUND}]",
    """
<opening>
? <trait>
One night, when everyone else was asleep, {hero} heard {a sound}. "{Noise}" it went.
| One evening {hero} went to bed early. In the middle of the night {a sound} woke {him}. "{Noise}"
It came from {where}. {Hero} [pulled the blanket up to {his} nose|sat up and listened|did not dare to move].
| "[What is that|Who is there]?" whispered {hero}. [The answer|It] came from {where}: "{Noise}"
? [Perhaps it was a monster|Maybe it was a ghost|It might be a robber], {he} thought.

In the morning {he} told {friend.intro} about the {sound}.
"[I think it is|Perhaps it is|It must be] {guess}," said {friend}. "[Let us find out|Tonight we will watch together]."
[When night came|After dark|That night], they waited [behind the door|on the stairs|under a blanket] with a small lamp.
? The clock ticked. [An owl called|The moon rose]. {Friend} yawned.
Then it came again: "{Noise}" | They did not wait long. "{Noise}" [There it was|It began again]!
{Hero} [held {friend}'s hand|took a deep breath] and [lifted the lamp|opened the door a crack].
| Side by side, on [soft|quiet] feet, they crept to {where}.

It was not {guess}. It was only {truth}!
| And what did they see? There, in the light of the lamp, was {truth}.
They looked at each other and [began to laugh|laughed until their sides hurt].
| "[So that is our monster|And I was afraid of that]!" said {hero}, and {he} felt <glad>.
{Fix} | {Fix} [After that, the night was quiet|Then they went back to bed].
? "[A noise is only frightening until you know its name|Fear is small when you shine a light on it]," said {elder}.
<lastly>
""",
    table("""
sound; noise; where; guess; truth; fix; dream
tapping sound; Tap, tap, tap!; the window; a bony finger; a branch of the pear tree, moving in the wind; In the morning they tied the branch back with a string.; the branch at the window
scratching sound; Scritch, scratch!; the kitchen; a thief; a hungry mouse with a crust of bread; They gave the mouse a bit of cheese and carried it out to the field.; the mouse with the crust
deep hum; Hummm, hummm!; the chimney; a giant who was humming; the wind, blowing across the open chimney; They closed the little door of the stove.; the humming chimney
splashing sound; Plip, plop!; the cellar; a water monster; a drop that fell from a pipe into a pail; In the morning they mended the pipe.; the drops in the cellar
rattling sound; Rattle, rattle!; the roof; somebody with a chain; a loose tile that moved whenever the wind blew; The next day they fastened the tile.; the loose tile
creaking sound; Creak, creak!; the stairs; a ghost; an old rocking chair by the open window; They shut the window, and the chair stood still.; the rocking chair
snoring sound; Rrrr, pssss!; the garden; a sleeping bear; a hedgehog, fast asleep in a heap of leaves; They covered it with more leaves and tiptoed away.; the hedgehog in the leaves
clinking sound; Clink, clink!; the shelf; an army of tiny knights; a row of cups that shook when the night train passed; They put a cloth between the cups.; the dancing cups
"""),
)

GARDEN = Plot(
    "[{Hero}'s Garden|The {CROP} Patch|Waiting for {CROP}|A Handful of Seeds]",
    """
<opening>
<oneday> {elder} gave {him} a handful of seeds. "[Plant them|Put them in the earth]," said {elder}, "and be patient."
| In spring {hero} found a small bag in the shed. "{CROP}," said the label.
{Hero} dug the soil, [pulled out the weeds|raked it smooth] and planted the seeds in [a straight row|neat rows|a circle].
? <trait>

Every [day|morning|evening] {he} [looked|went to see] if anything was growing. [Nothing|Only bare earth]!
| The first day nothing happened, and the second day nothing happened, too.
"[Perhaps they are bad seeds|Why does it take so long]?" {he} asked {friend.intro}.
"[Wait a little|Seeds work in secret]," said {friend}. "[Have you given them water|They grow roots first]?"
Then, [after a week|after ten days|one rainy morning], there were [tiny|small] green [leaves|tips] in the soil. {Hero} was <glad>.
But [soon|in early summer] there was trouble: {trouble}.
| The plants grew and grew. Then one day {hero} saw that {trouble}.

"[All my work is lost|My poor plants]!" [cried|sighed] {hero}.
{Friend} [scratched {friend.his} head|thought about it]. "[I know what to do|We can mend that]," said {friend}. They {remedy}.
| {Hero} asked {elder} for advice. Then {hero} and {friend} {remedy}.
It was hard work, but [it helped|the plants grew strong again|the next day all looked better].
? <sky>

[At the end of summer|In August|When the days grew shorter] there were {crop} [everywhere|in every row|enough for all].
| And then came the harvest: a whole basket of {crop}!
They made {dish} and invited {elder}. "[I have never eaten anything better|This tastes of patience]," said {elder}.
| {Hero} brought {elder} the [first|best] of the {crop}, and together they made {dish}.
? {Hero} kept a few seeds in a [paper bag|tin box] for the next spring.
? <ending>
""",
    table("""
crop; trouble; remedy; dish; dream
carrots; a rabbit had nibbled the leaves; built a low fence of sticks; carrot soup; the row of carrots
tomatoes; the stems bent down to the ground; tied each plant to a stick; a big pot of tomato sauce; the red tomatoes
pumpkins; the leaves hung down in the heat; carried water from the stream each evening; pumpkin pie; the biggest pumpkin
beans; snails had eaten holes in the leaves; collected the snails and carried them to the wood; bean stew; the tall beans
strawberries; birds were picking at the fruit; hung up strips of cloth that danced in the wind; strawberry jam; the sweet strawberries
sunflowers; a storm had pushed them over; pushed strong poles into the earth and tied the stems to them; a bowl of roasted seeds; the golden sunflowers
peas; the thin plants had nothing to climb on; stretched strings between two poles; pea soup; the green peas
potatoes; weeds had covered the whole bed; pulled out the weeds, root by root; baked potatoes; the potato fire
"""),
    season="summer",
)

SECRET = Plot(
    "[The Broken {THING}|{Hero} Tells the Truth|An Accident|{Elder}'s {THING}]",
    """
<opening>
? <trait>
{Elder} had {a thing} that {elder.he} {loved}.
| The most beautiful thing in {elder}'s house was {a thing} that {elder.he} {loved}.

<oneday> {hero} was playing [indoors|in {elder}'s room|near the table] although {he} knew that it was not allowed.
| <oneday> {hero} visited {elder}, and for a moment {he} was alone in the room.
Then it happened: {accident}. | All of a sudden {accident}.
{Hero} stood quite still. [{His} heart beat loudly|{He} wished that it were a dream].
Quickly {he} hid it [under a cushion|behind the curtain|in a drawer] and [ran outside|went home].
? Nobody had seen it. [But somehow that did not help|And yet the sun seemed less bright].

All day {hero} was <sad>. {He} could not [eat|play|laugh].
| At supper {he} could not eat, and at night {he} could not sleep.
{Friend.intro} saw it at once. "[Something is wrong|You are so quiet]," said {friend}. So {hero} told {friend.him} [everything|about the {thing}].
"[You must tell {elder}|A secret like that only grows heavier]," said {friend}. "I will come with you."
| "It was an accident," said {friend}. "[Hiding it was not|But {elder} should know]."

[The next morning|An hour later] {hero} stood before {elder}. "I [broke|spoiled] your {thing}," {he} said, "and I hid it. I am sorry."
| "It was me," said {hero} [in a small voice|with {his} eyes on the floor]. "I am so sorry about your {thing}."
{Elder} was silent for a moment. Then {elder.he} said, "[Thank you for telling me|The truth is worth more to me than {a thing}]."
| {Elder} [sighed|looked at the {thing}] and then smiled. "[Things break|I broke one, too, when I was young]," {elder.he} said.
Together they {mend}. | "Come, help me," said {elder}, and they {mend}.
? {Result}

And {hero} felt [as light as a feather|as if a stone had fallen from {his} heart].
| {Hero} slept [well|soundly] that night, for {he} had no secret any more.
? <ending>
""",
    table("""
thing; loved; accident; mend; result; dream
blue vase; filled with fresh flowers every week and loved; {his} elbow touched the vase, and it fell to the floor; glued the pieces, one after the other; One could still see the lines, but the flowers did not mind.; the blue vase
music box; wound up every evening and loved; {he} turned the key too far, and something inside went crack; opened the lid and set the spring right again; It played a little slower now, but it played.; the music box
teapot; used every afternoon and loved; the teapot slipped from {his} hands, and its handle broke off; made a new handle of bent wire; It poured as well as ever.; the teapot
sewing basket; had from {elder.his} own mother and loved; {he} sat down on it, and the lid split; tied the lid with a leather string; It even closed better than before.; the sewing basket
picture frame; dusted every Sunday and loved; {his} ball flew against the wall, and the frame came down; fitted a new piece of wood; The picture hung straight again.; the picture on the wall
table lamp; lit every evening and loved; {he} ran round the table and knocked the lamp over; straightened the metal and put in a new wick; That night its light was as warm as ever.; the table lamp
"""),
)

NEWCOMER = Plot(
    "[The New House|A New Friend|{Hero} Finds a Friend|{Hero} and {Friend}]",
    """
{Hero} was new [here|in this place]. [Last week|Only three days ago] {he} had moved to {home}, and {he} did not know anyone.
| When {hero} came to live in {home}, everything was strange. [Even the birds sounded different|The nights were too quiet].
| {Hero} was <a size> {kind} who had moved to {home}, far from all {his} friends.
? [{He} missed {his} old room|At home {he} had known every stone]. {Elder} said, "Give it time."

<oneday> {he} sat [alone|all by {himself}] on the [steps|wall] and watched the others. Nobody [called {him}|looked {his} way].
| <oneday> {hero} went for a walk with {his} hands in {his} pockets. {He} felt <sad>.
? <sky>
Then {he} saw someone who was {doing}.
| Near {place}, somebody was {doing}.
{Hero} [wanted to ask if {he} could join|stood and watched], but {he} was too shy.
| "[Should I say hello|What if I am in the way]?" thought {hero}, and {he} almost went home.
But then {problem}. | Just then {problem}.
Without thinking, {hero} {help}. | {Hero} ran over and {help}.

"[Thank you|That was quick]!" said the other. "My name is {friend}. [What is yours|Who are you]?"
"{Hero}," said {hero}. "[I am new here|We have just moved in|I do not know anyone yet]."
"[Now you know me|Then it is time you did]," said {friend}. "[Do you want to help me|Two can do this better]?"
[All afternoon|Until evening] they {together}.
| So they {together}, and [time flew|soon they were laughing].
? {Friend} [showed {him} the best place for berries|told {him} the name of every dog]. {Hero} was <glad>.

[When {he} came home|That evening], {elder} asked, "[How was your day|Why are you smiling]?"
"[I have a friend|I met someone]," said {hero}. "[Tomorrow|On Saturday] we are going to [finish it|do it again]."
? It was still a new place, but it was no longer [a strange one|lonely].
? <lastly>
""",
    table("""
place; doing; problem; help; together; dream
the pond; building a dam from stones; the dam broke, and the water rushed out; threw a big stone into the gap; made the dam higher and stronger; the dam of stones
the big tree; building a tree house; a board slipped and nearly fell; caught the board and held it; hammered, sawed and planned; the tree house
the sandpit; digging a tunnel; the tunnel began to fall in; put a piece of wood under the roof; dug all the way to the other side; the tunnel
the fence; painting a fence; the paint pot started to slide; caught the pot with both hands; painted the whole fence green; the green fence
the field; flying a kite; the string slipped away, and the kite took off; ran and caught the end of the string; let the kite climb and dive; the kite on the wind
the stream; folding paper boats; the wind blew all the boats away; fished them out with a stick; raced the boats down the stream; the paper boats
the lane; trying to ride a very old bicycle; the chain came off; showed how to put it back on; took turns riding up and down; the old bicycle
the orchard; picking apples into a basket; the basket tipped over, and the apples rolled downhill; stopped the apples with {his} feet; picked until every basket was full; the rolling apples
"""),
)

BOAST = Plot(
    "[The Proud {BOASTER}|The {BOASTER} and the {QUIET}|A Fable|The Patient {QUIET}]",
    """
[Once|Long ago], in {home}, there lived {a boaster} who was very proud of {boast}.
| {A boaster} and {a quiet} [once lived|lived long ago] in {home}. The {boaster} was proud of {boast}.
Day after day the {boaster} [talked of nothing else|told everyone about it]. "[Nobody|No one here] is as {good} as I am!" he said.
? The [other animals|neighbours] were tired of hearing it.

<oneday> the {boaster} met {a quiet} [on the path|at the spring|near the old bridge].
| <oneday> the {quiet} was working quietly when the {boaster} came by.
"You are so {bad}," [laughed|said] the {boaster}. "[What are you good for|I feel sorry for you]!"
| "Look at you!" said the {boaster}. "[How can anyone be|I would never want to be] so {bad}?"
"[That may be|It is true]," said the {quiet}, "but {reply}."
"[Then let us see|Prove it]!" said the {boaster}. "{Dare}"
? <sky>

So it was agreed, and {friend} the {judge} was to be the judge.
| Everyone came to watch. {Friend} the {judge} gave the sign.
The {boaster} {first}. | At first all went well for the {boaster}. He {first}.
The {quiet} did not hurry. She {second}. | Meanwhile the {quiet} {second}.
Then {turn}.
And so, [to everybody's surprise|as {friend} announced], the {quiet} {won}.

The {boaster} [hung his head|was silent for once]. "[You were right|I have been foolish]," he said.
| "[How did you do it|I do not understand]," said the {boaster}. "[Step by step|With patience]," answered the {quiet}.
"[Come|Never mind]," said the {quiet} kindly. "[Sit down and eat with us|We can all learn something]."
| The {quiet} did not laugh at him. She [shared her supper with him|asked him to sit down].
[The lesson is|And so we learn|Remember]: {moral}.
""",
    table("""
boaster; quiet; boast; good; bad; reply; dare; first; second; turn; won; moral; judge; dream
hare; snail; his long legs; fast; slow; I always get where I am going; First one at the mill wins!; ran ahead and lay down in the clover for a nap; crept along and did not stop once; the sun went down, and the sleeper woke up too late; reached the mill first; a slow start is better than a long nap; owl; the mill
peacock; sparrow; his bright tail; beautiful; plain; my brown feathers serve me well; Let us see whom everyone looks at tonight!; spread his tail and shone in the evening light; sat among the brown leaves; a fox came out of the wood, saw the bright tail and pulled out three feathers, but never noticed the little bird; came home without losing a feather; what is plain is often safe; crow; the brown leaves
ox; ant; his great strength; strong; weak; many small loads make a big heap; Whoever moves this sack of grain before dark wins!; pulled at the sack with one great jerk, but it tore on a nail, and he walked off in anger; carried one grain after another, with all her sisters; the moon came up and shone on an empty sack; had moved it all; patience moves what strength drops; goose; the empty sack
rooster; spider; his loud voice; loud; quiet; I speak with my work; Who can catch a fly first?; crowed so loudly that every fly flew off; spun a thin net between two twigs; three flies came by and were caught in the net; won; those who talk the most do not catch the most; toad; the silver net
wolf; tortoise; his sharp teeth; dangerous; harmless; my house goes with me; I will open your little house before noon!; bit and scratched until his teeth hurt; pulled in her head and waited; the clock struck twelve, and the shell had not a scratch; put out her head and walked away; who is well protected need not fight; raven; the round shell
"""),
    cast="animals",
)
