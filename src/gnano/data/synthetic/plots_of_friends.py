"""Stories of friends who quarrel, compete and meet."""

from gnano.data.synthetic.grammar import table
from gnano.data.synthetic.plots import Plot

QUARREL = Plot(
    "[{Hero} and {Friend}|Two Friends and One {THING}|Whose {THING}?|The {THING}]",
    """
<opening>
? <trait>
{His} best friend was {friend.whom}, and the two did [nearly everything|most things] together.
| Every day {he} met {friend.whom}, [and they were never bored|rain or shine].

<oneday> they {found}.
? <sky>
"It is mine!" said {hero}. "I saw it [first|long before you did|while you were still looking at the
  sky]!" | "I saw it first," said {hero}, "so it is mine."
"No, it is mine," said {friend}. "I {claim}!"
| "But I {claim}," answered {friend}, "and so it belongs to me."
They pulled and [shouted|argued] until [both were red in the face|they had no voice left].
| Soon neither would [speak to|look at] the other, and the {thing} lay between them.
Then {trouble}. | All at once {trouble}.

{Elder} [had seen it all|came along the path]. "{Question}" {elder.he} asked.
| "[Let me ask you something|Listen to me]," said {elder}. "{Question}"
{Hero} looked at {friend}, and {friend} looked at {hero}. [Both felt a little foolish because of {a
  thing}|Neither {hero} nor {friend} said a word].
| {Hero} and {friend} thought about that. {Hero} was <sad>. "[I am sorry|I was unkind]<mate>," {he}
  said.
"[I am sorry too|And so was I]," said {friend}. "[You may have it|It is only a {thing}]<dear>."
"I have a better idea," said {hero}. "{Idea}"
| {Hero} had an idea. "{Idea}" {he} said [to {friend}|with a smile|and laughed].

So that is what {hero} and {friend} did. They {result}.
| {Hero} and {friend} tried it with the {thing}, and it worked. They {result}.
? "[That is much better|Now it is twice as good]," said {elder}, and {elder.he} was <glad>.
<ending>
? [A thing can be shared|Things come and go], but [a friend is hard to replace|a friend is worth
  more than a thing].
""",
    table("""
thing; found; claim; trouble; question; idea; result; dream
sled; found an old sled behind the shed; pulled it out of the snow; the rope snapped, and both sat
  down in the snow; Can one of you pull and ride at the same time?; Let us ride down together and
  pull it up together!; raced down the hill until their cheeks were red; the long sled ride
swing; found a swing on the old tree; brushed the leaves off it; a rope slipped, and the seat hung
  to one side; Who pushes, when only one is there?; You push me ten times, and then I push you!;
  flew up and down, turn after turn; the swing
melon; found a big melon at the end of the field; carried it half the way; the melon rolled down the
  hill and cracked in two; Now there are two halves, so what is the quarrel about?; Half for you and
  half for me!; ate until the juice ran down their chins; the sweet melon
rowing boat; found a little boat by the shore; untied the knot; the boat began to turn round and
  round; How far does a boat go with one oar?; You take the left oar, and I take the right!; rowed
  straight across the bay; the boat with two oars
drum; found a painted drum in the attic; carried it down the stairs; one of the sticks broke; Would
  the song not sound better with two?; One can drum, and the other can sing!; made so much music
  that people came to dance; the drum and the song
tent; found a small tent in a chest; carried the poles; the tent fell down on top of them; Who was
  holding the other pole?; You hold this side, and I hold that one!; slept in it under the stars;
  the tent under the stars
wheelbarrow; found a wheelbarrow behind the barn; cleaned its wheel; it tipped over and spilled all
  the leaves; Which of you can push it while sitting in it?; First I push you, and then you push
  me!; brought in all the leaves before dark; the ride in the wheelbarrow
cart; found a cart with four good wheels; oiled the wheels; the cart rolled away by itself into a
  hedge; Who steers, when both are pulling?; You steer, and I push!; won every race that week; the
  fast little cart
"""),
)

CONTEST = Plot(
    "[The Great {EVENT}|{Hero} and the {EVENT}|The Day of the {EVENT}|Second Place]",
    """
<opening>
[Every year|Each year] there was {a event}, and this time {hero} wanted to [take part|win].
| {Hero} had only one wish: to win the {event}.
{Hero} practised [every morning|each evening|day after day]. {Practice}
? "[You get better every day|Do not forget to rest]," said {elder}.

At last the day of the {event} [came|had come]. <sky> {Friend.intro} [took part as well|wanted to
  win, too].
| Then came the day of the {event}. [The whole neighbourhood was there|Flags hung everywhere], and
  {friend} stood next to {him}.
"[Good luck|May the best one win]," said {friend}. "[And good luck to you|The same to you]," said
  {hero}.
For {hero} the {event} began well. {Start} | {Start} [{Friend} cheered|{Hero} smiled].
But then {mishap}. | Suddenly {mishap}.

{Hero} could have [gone on|left {friend} there|thought only of the prize]. Instead {he} stopped and
  {help}.
| [For a moment|For one breath] {hero} thought of the prize. Then {he} turned and {help}.
"[You could have won|The prize was yours]!" said {friend}.
"[A prize is nice, but you are my friend|It would not be fun without you]," [said|answered] {hero}.
Someone else won the {event}, [and nobody minded|but the crowd cheered for the two friends].
| They did not win, but when they stood there [together|side by side], [everyone clapped|the crowd
  cheered].

The judge gave them {prize}. "[For fair play|For the kindest deed of the day], {hero} and {friend},"
  said the judge.
| {Elder} gave {him} {prize}. "[You won something better|I am proud of you]," said {elder}.
? {Hero} shared the prize with {friend}, of course.
<ending>
""",
    table("""
event; practice; start; mishap; help; prize; dream
running race; {He} ran to the mill and back until {his} legs were strong.; {Hero} ran like the wind
  and was soon in front.; {friend} stumbled over a root and hurt {friend.his} foot; helped {friend}
  up; a bag of walnuts; the race
kite contest; {He} built three kites and chose the best.; {Hero}'s kite climbed higher than all the
  others.; {friend}'s line got caught in a tree; helped to free it; a ball of golden string; the
  kites in the sky
boat race; {He} rowed across the lake and back until {his} arms ached.; {Hero}'s boat shot away from
  the shore.; {friend}'s boat hit a stone and began to fill with water; pulled {friend} into {his}
  own boat; a little blue flag; the boat race
cooking contest; {He} cooked the same soup nine times.; {Hero}'s soup smelled wonderful.; {friend}'s
  pot tipped over, and everything ran out; gave {friend} half of {his} vegetables; a wooden ladle;
  the two soups
pumpkin show; {He} watered {his} pumpkin and talked to it.; {Hero}'s pumpkin was round and bright.;
  the wheel of {friend}'s cart broke, and there lay {friend.his} pumpkin on the road; carried it
  together with {friend}; a packet of rare seeds; the two pumpkins
sandcastle contest; {He} learned how much water good sand needs.; {Hero}'s castle soon had five
  towers.; a big wave washed away half of {friend}'s castle; helped to build a wall against the sea;
  a shell as big as a hand; the castle by the sea
sled race; {He} waxed the runners and studied every bend.; {Hero} flew past the first bend.;
  {friend}'s sled tipped over in the deep snow; pulled {friend} out; a pair of warm mittens; the
  snowy race
"""),
)

NEWCOMER = Plot(
    "[The New House|A New Friend|{Hero} Finds a Friend|{Hero} and {Friend}]",
    """
{Hero} was new [here|in this place]. [Last week|Only three days ago] {he} had moved to {home}, and
  {he} did not know anyone.
| When {hero} came to live in {home}, everything was strange. [Even the birds sounded different to
  {hero}|The nights were too quiet for {hero}].
| {Hero} was <a size> {kind} who had moved to {home}, far from all {his} friends.
? [{He} missed {his} old room|At home {he} had known every stone]. {Elder} said, "Give it time."

<oneday> {he} sat [alone|all by {himself}] on the [steps|wall] and watched the others. Nobody
  [called {him}|looked {his} way].
| <oneday> {hero} went for a walk with {his} hands in {his} pockets. <he> felt <sad>.
? <sky>
Then {he} saw someone who was {doing}.
| Near {place}, somebody was {doing}.
{Hero} [wanted to ask if {he} could join|stood and watched], but {he} was too shy.
| "[Should I say hello|What if I am in the way]?" thought {hero}, and {he} almost went home.
But then {problem}. | Just then {problem}.
Without thinking, {hero} {help}. | {Hero} ran over and {help}.

"[Thank you|That was quick|You came just in time]!" said the other, [{a friend.kind} with a friendly
  face|brushing the dust from {friend.his} knees|out of breath]. "My name is {friend}, and [what is
  yours|who are you]?"
"[I am {hero}, and I am new here|{Hero}, and I do not know anyone yet|My name is {hero}, and we have
  just moved in]," said {hero}.
"[Now you know me|Welcome, {hero}|I am glad to meet you]," said {friend}. "[Do you want to
  help me|Shall we do this together]<dear>?"
[All afternoon|Until evening] they {together}.
| So they {together}, and [time flew|soon they were laughing].
? {Friend} [showed {him} the best place for berries|told {him} the name of every dog]. {Hero} was
  <glad>.

[When {he} came home|That evening], {elder} asked, "[How was your day|Why are you smiling]?"
"[I have a friend|I met someone]," said {hero}. "[Tomorrow|On Saturday] we are going to [finish
  it|do it again], {friend} and I."
? It was still a new place, but for {hero} it was no longer [a strange one|lonely].
? <lastly>
""",
    table("""
place; doing; problem; help; together; dream
the pond; building a dam from stones; the dam broke, and the water rushed out; threw a big stone
  into the gap; made the dam higher and stronger; the dam of stones
the big tree; building a tree house; a board slipped and nearly fell; caught the board and held it;
  hammered, sawed and planned; the tree house
the sandpit; digging a tunnel; the tunnel began to fall in; put a piece of wood under the roof; dug
  all the way to the other side; the tunnel
the fence; painting a fence; the paint pot started to slide; caught the pot with both hands; painted
  the whole fence green; the green fence
the field; flying a kite; the string slipped away, and the kite took off; caught the end of the
  string; let the kite climb and dive; the kite on the wind
the stream; folding paper boats; the wind blew all the boats away; fished them out with a stick;
  raced the boats down the stream; the paper boats
the lane; trying to ride a very old bicycle; the chain came off; showed how to put it back on; took
  turns riding up and down; the old bicycle
the orchard; picking apples into a basket; the basket tipped over, and the apples rolled downhill;
  stopped the apples with {his} feet; picked until every basket was full; the rolling apples
"""),
)
