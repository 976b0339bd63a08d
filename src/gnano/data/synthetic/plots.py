"""What happens in a story: each plot is a script and a table of the things it may be about.

A row is drawn once a story, so the thing that is lost is the thing that is found. Every plot
names what the hero will remember of it in `dream`, which the shared endings speak of.
"""

from dataclasses import dataclass

from gnano.data.synthetic.grammar import table


@dataclass(frozen=True)
class Plot:
    title: str
    text: str
    rows: list[dict[str, str]]
    cast: str = "any"  # or "animals"
    season: str = "any"  # or "summer", "winter": which days fit


LOST = Plot(
    "[The Lost {THING}|{Hero} and the {THING}|Where Is the {THING}?|Looking for {a THING}]",
    """
<opening>
? <trait>
[Of all {his} things|More than anything], {hero} loved {a thing} that {elder} had given {him}.
| {He} had {a thing}, a present from {elder}, and {he} {use} [every day|whenever {he} could].
| {Hero}'s dearest [treasure|thing] was {a thing}. [On good days|After lunch] {he} {use}.

<oneday> the {thing} was gone.[| {Hero} looked under the bed and in every corner.]
| <oneday> {hero} [could not find|went to look for] the {thing}, but its place was empty.
| <oneday> {hero} reached for the {thing}, and it was not there.
? <sky>
{Hero} [felt|was] <sad>. [It could be anywhere!|Where could it be?|{He} did not know where to begin.]
| "My {thing}!" cried {hero}. "[I had it yesterday|It was here this morning|Where has it gone]!"

{Friend.intro} [came by|heard the noise|saw {hero}'s face] and asked [what was wrong|what had happened].
"[When did you last have it|Where were you when you last had it]?" asked {friend}.
| "Let us [think|go back step by step]," said {friend}. "[Where did you go|What did you do] yesterday?"
"[I remember|I think] I was [near|not far from] {near}," said {hero}.
| {Hero} thought hard. "Yesterday I went to {near}," {he} said [slowly|at last].
So [the two|they] [walked|ran|hurried] to {near} and looked [carefully|everywhere|high and low].
| Together they went back to {near}. [At first they saw nothing|They searched for a long time].
[There|At last they saw it]: the {thing} was {spot}!
| Then {friend} pointed. "Look!" There it was, {spot}.
| And {spot}, a little [dusty|wet] but safe, [they found|was] the {thing}.

<thanks>
? {Elder} laughed when {elder.he} heard it. "[Now you know|So you see]," {elder.he} said, "[two pairs of eyes
  see more than one|a lost thing waits for a patient friend]."
{Hero} tied a [blue|yellow] ribbon to the {thing} so that it would never be lost again.
| After that {hero} always put the {thing} [in its place|on the same shelf] before {he} went to sleep.
| {He} held the {thing} [tightly|with both hands] all the way home.
? <ending>
""",
    table("""
thing; use; near; spot; dream
red kite; flew it over the fields; the old oak; [high in the branches|in a bush behind the tree]; the kite in the oak
silver whistle; played a tune on it; the stream; [between two wet stones|in the tall grass]; the whistle by the stream
woollen scarf; wore it; the market; [on a nail beside the fish stall|over the back of a bench]; the scarf that went to market
wooden boat; sailed it; the pond; [among the reeds|under the little bridge]; the boat on the pond
blue ball; kicked it about; the mill; [behind the flour sacks|under a cart]; the blue ball at the mill
green umbrella; opened it in the rain; the bus stop; [leaning against the wall|under the seat]; the umbrella that waited
box of paints; painted with it; the apple trees; [on a stump|in the grass beside a ladder]; the colours under the apple trees
small drum; beat it; the barn; [on a bale of straw|behind the barn door]; the drum in the barn
brass key; turned it in an old lock; the well; [in a crack of the wall|beside the bucket]; the key at the well
straw hat; wore it; the beach; [on top of a sandcastle|behind a big rock]; the hat on the beach
picture book; read in it; the library steps; [on the top step|behind a flower pot]; the book on the steps
magnifying glass; looked at ants with it; the flower beds; [under a cabbage leaf|beside a watering can]; the glass among the flowers
yellow lantern; lit it; the garden gate; [on the gatepost|under the hedge]; the lantern at the gate
little flute; played it; the hill; [on a flat stone|in a patch of clover]; the flute on the hill
bag of marbles; counted them in it; the school wall; [in a hole below the wall|under some leaves]; the marbles by the wall
"""),
)

RESCUE = Plot(
    "[The {BEAST} in Trouble|{Hero} Saves {a BEAST}|A Small Voice|Help for {a BEAST}]",
    """
<opening>
<trait>
? [Not far away|Nearby] lived {friend.intro}, who [came to play|visited] almost every day.

<oneday> {hero} was [walking|playing|picking berries] near {place} when {he} heard [a tiny|a faint|an odd] sound.
? "[Did someone call|Who is there|Is that a bird]?" {he} [wondered|asked softly].
It was {a beast}! It was {stuck}, and it could not [get out|get away|move].
| {Hero} [looked closer|went nearer] and saw {a beast} that was {stuck}.
The poor {beast} [trembled|looked up with big eyes|was cold and afraid].
| "Do not be afraid," [whispered|said] {hero} to the {beast}. "[I will help you|I am your friend]."

First {hero} tried to [reach it|free it] alone, but {why}.
| {He} tried [once|twice], but {why}.
So {he} ran to [find|fetch] {friend}. "[Come quickly|Hurry]!" {he} [called|cried]. "{A beast} needs our help!"
| "I need [help|a friend]," thought {hero}, and {he} hurried to {friend.intro}.
{Friend} [thought for a moment|did not wait] and [brought|came back with] {tool}.
| "[I know what we need|I have an idea]," said {friend}. "We can use {tool}!"
[Slowly and gently|Very carefully|With great care] they {freed}.
? For a moment [nothing happened|it was very still], and {hero} held {his} breath.

The {beast} was free! It {thanks}.
| At last the {beast} was safe. It {thanks}, and {hero} felt <glad>.
? {Elder} [heard about it|saw them come home] and said, "[Even the smallest creature is worth an afternoon|A kind heart
  is stronger than a strong arm|You were right to ask for help]."
<thanks>
| <ending>
? [Some days|A week|A month] later the {beast} came back [to visit|with two others], and {hero} [was|felt] <glad>.
""",
    table("""
beast; place; stuck; why; tool; freed; thanks; dream
kitten; the old elm; sitting on a branch high above the ground; the trunk was too smooth to climb; a ladder; climbed up and carried it down; purred like a tiny engine; the kitten in the elm
duckling; the road; sitting at the bottom of a deep ditch; the sides were too steep; a long flat board; let down the board so that it could walk out; ran back to its mother; the duckling in the ditch
sparrow; the barn; tangled in a piece of net; the knots were too tight; a pair of scissors; cut the net thread by thread; flew up and sang; the sparrow in the net
baby goat; the fence; caught with its head between two boards; the boards would not bend; a bar of soap; made the wood slippery and pushed its head back; jumped in a circle; the goat in the fence
turtle; the beach; lying on its back in the hot sand; it was too heavy to turn over; a strong stick; pushed the stick under the shell and turned it over; walked off into the waves; the turtle on the sand
puppy; the river; standing on a rock with water all around; the current was too strong; a long rope and a basket; pulled the basket with the puppy across; wagged its tail; the puppy on the rock
butterfly; the greenhouse; caught in an old spider's web; their own fingers were too clumsy for such thin wings; a soft paintbrush; brushed the threads away; opened its wings and danced above the flowers; the butterfly and the paintbrush
young crow; the mill; stuck in a narrow pipe; the pipe was too deep; a bucket of grain; filled the pipe with grain until it could climb out; called loudly and ate some of the grain; the crow in the pipe
lamb; the bog; sunk up to its knees in the mud; the mud was too soft to stand on; an old wooden door; laid the door on the mud and pulled it out; shook itself and splashed them both; the lamb in the mud
beetle; the rain barrel; swimming round and round in the water; the barrel was too high to see into; a big leaf on a stick; held out the leaf like a boat until it climbed on; dried its wings and hummed away; the beetle in the barrel
"""),
)

GIFT = Plot(
    "[A Present for {ELDER}|{Hero} and the {GIFT}|The {GIFT}|What {Hero} Made]",
    """
<opening>
? <trait>
[Soon|In three days|On Sunday] it would be {elder}'s birthday, and {hero} wanted to [give|bring] {elder.him} something special.
| {Elder} had been [ill|away] for a long time, and {hero} wanted to welcome {elder.him} with a present.

"I will {make} {a gift}," {hero} [decided|said to {himself}]. "{Elder} will [love|like] it."
| {Hero} thought [all morning|for a long time]. Then {he} knew: {he} would {make} {a gift}!
<oneday> {he} [began|set to work|started early].
? <sky>
But [soon|then] there was a problem. {Hero} needed {missing}, and there was [not enough|none] in the house.
| Everything went well until {he} saw that {he} had no {missing}.
{Hero} looked [in every box|on every shelf|all over the house], but {he} found only [dust|old paper|a sleepy spider].
| "Without {missing} I cannot finish," sighed {hero}. {He} was <sad>.

[Just then|At that moment|Before long] {friend.intro} knocked at the door. "[Why do you look so sad|What are you making]?" {friend} asked.
"I have {missing}," said {friend}. "[I kept it for a day like this|You may have it|Take what you need]!"
| {Friend} ran home and came back with {missing}. "[We can share|I do not need it]," {friend.he} said.
[Side by side|Together] they {work} until [the sun went down|evening came|the clock struck six].
| {Hero} {work}, and {friend} helped. [They laughed a lot|It took the whole afternoon].
? It was not perfect, but it was made with [love|care|four busy hands].

On the [great|big] day {hero} [carried|brought] the {gift} to {elder}.
"[Did you make this yourself|Is this really for me]?" asked {elder}. "{Praise}"
| {Elder} looked at the {gift} for a long time. Then {elder.he} [smiled|wiped {elder.his} eyes] and said, "{Praise}"
"{Friend} helped me," said {hero}, because that was [true|only fair].
? <ending>
""",
    table("""
gift; make; missing; work; praise; dream
striped scarf; knit; blue wool; knitted row after row; It is as warm as a hug!; the striped scarf
apple pie; bake; flour; rolled the dough and cut the apples; I can smell the cinnamon from here!; the smell of apple pie
birdhouse; build; good glue; measured, sawed and hammered; The birds will be so pleased!; the first bird in the birdhouse
honey cake; bake; honey; stirred the batter and watched the oven; I have never tasted a better cake!; the honey cake
picture of the sea; paint; blue paint; painted wave after wave; I can almost hear the water!; the painted sea
paper lantern; make; thin paper; cut, folded and glued; It shines like a little moon!; the lantern that shone like a moon
wooden spoon; carve; fine sandpaper; carved and smoothed the wood; My soup will taste twice as good!; the wooden spoon
bead necklace; make; strong thread; threaded bead after bead; I will wear it every Sunday!; the beads in the sun
pot of soup; cook; salt; washed, chopped and stirred; Nothing is better on a cold day!; the warm soup
patchwork cushion; sew; red cloth; cut the squares and sewed them together; My old chair will be proud!; the bright cushion
song book; write; clean paper; wrote down every song they knew; We will sing them all tonight!; the songs they sang
clay bowl; shape; wet clay; shaped the bowl and painted its rim; It is just right for my morning porridge!; the clay bowl
"""),
)

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
{Hero}'s [face grew hot|knees began to shake|heart beat fast]. "I am afraid of {fear}," {he} [whispered|said at last].
| At first {hero} said nothing. Then {he} told {friend} the truth about {fear}.
{Friend} did not laugh. "[I was afraid once, too|Everyone is afraid of something]," said {friend}. "[We will go slowly|Let us
  try it together|I will stay beside you]."
? {Elder} nodded. "[Brave does not mean without fear|A big thing is only many small things]," said {elder}.

[On the first day|First] {hero} only {one}.
[The next day|On the second day|Then] {he} {two}. [It was not so bad|{His} heart still beat fast, but less than before].
? "[You are doing well|Look how far you have come]!" [called|said] {friend}.
[And at last|After a week|Finally], {hero} {three}.
| Then came the day when {hero} {three}. [{He} could hardly believe it|Even {friend} was surprised]!

"I did it!" [cried|shouted] {hero}. {He} was <glad>.
| {Hero} laughed out loud. "[It is fun|I am still a little afraid, but I can do it]!" {he} said.
<thanks>
| <ending>
{Lesson}
? Now, when someone else is afraid of {fear}, {hero} says, "[Take my hand|We will go slowly]."
""",
    table("""
fear; others; one; two; three; lesson; dream
deep water; swam in the lake; put {his} toes into the water; walked in up to {his} knees; swam all the way to the little island; The lake was as deep as before, but {hero} had grown.; the little island
the dark; told stories by starlight; sat on the doorstep while the sun went down; walked to the gate with a lantern; blew out the lantern and counted the stars; The dark, {he} had learned, is full of small lights.; the stars
thunder; counted the flashes in a storm; listened to the rain from under a blanket; sat at the window and counted between flash and thunder; stood at the open door while the thunder rolled away; A loud noise, {he} had learned, is still only a noise.; the storm
high places; climbed the lookout tower; stood on a low wall; climbed to the first landing; stood at the very top and waved; From above, even big troubles look small.; the view from the tower
big dogs; played with Bruno, the farmer's dog; watched Bruno from behind the gate; let Bruno smell {his} hand; threw a stick, and Bruno brought it back; Some big things, {hero} found, are very gentle.; good old Bruno
singing in front of others; sang at the fire; sang alone to the trees; sang a short song to {friend}; sang for everybody at the summer feast; A song is like bread: it is better when it is shared.; the summer feast
the narrow bridge; ran across the bridge to the berry bushes; put one foot on the boards; walked to the middle, holding the rope; ran across and picked the ripest berries; The bridge had not changed, but {hero} had.; the berries beyond the bridge
the icy slope; raced down the hill on sleds; sat on a sled that did not move; slid down the lowest part; raced from the very top with a shout; The slope was steep, but courage grows by use.; the long ride down
"""),
)

QUARREL = Plot(
    "[{Hero} and {Friend}|Two Friends and One {THING}|Whose {THING}?|The {THING}]",
    """
<opening>
? <trait>
{His} best friend was {friend.whom}, and the two did [nearly everything|most things] together.
| Every day {he} met {friend.whom}, [and they were never bored|rain or shine].

<oneday> they {found}.
? <sky>
"It is mine!" said {hero}. "I saw it first!" | "I saw it first," said {hero}, "so it is mine."
"No, it is mine," said {friend}. "I {claim}!"
| "But I {claim}," answered {friend}, "and so it belongs to me."
They pulled and [shouted|argued] until [both were red in the face|they had no voice left].
| Soon neither would [speak to|look at] the other, and the {thing} lay between them.
Then {trouble}. | All at once {trouble}.

{Elder} [had seen it all|came along the path]. "{Question}" {elder.he} asked.
| "[May I ask you something|Listen to me]," said {elder}. "{Question}"
{Hero} looked at {friend}, and {friend} looked at {hero}. [Both felt a little foolish|Neither said a word].
| The two friends thought about that. {Hero} was <sad>. "[I am sorry|I was unkind]," {he} said.
"[I am sorry too|And so was I]," said {friend}. "[You may have it|It is only a {thing}]."
"I have a better idea," said {hero}. "{Idea}"
| {Hero} had an idea. "{Idea}" {he} said.

So that is what they did. They {result}.
| They tried it, and it worked. They {result}.
? "[That is much better|Now it is twice as good]," said {elder}, and {elder.he} was <glad>.
<ending>
? [A thing can be shared|Things come and go], but [a friend is hard to replace|a friend is worth more than a thing].
""",
    table("""
thing; found; claim; trouble; question; idea; result; dream
sled; found an old sled behind the shed; pulled it out of the snow; the rope snapped, and both sat down in the snow; Can one of you pull and ride at the same time?; Let us ride down together and pull it up together!; raced down the hill until their cheeks were red; the long sled ride
swing; found a swing on the old tree; brushed the leaves off it; a rope slipped, and the seat hung to one side; Who pushes, when only one is there?; You push me ten times, and then I push you!; flew up and down, turn after turn; the swing
melon; found a big melon at the end of the field; carried it half the way; the melon rolled down the hill and cracked in two; Now there are two halves, so what is the quarrel about?; Half for you and half for me!; ate until the juice ran down their chins; the sweet melon
rowing boat; found a little boat by the shore; untied the knot; the boat began to turn round and round; How far does a boat go with one oar?; You take the left oar, and I take the right!; rowed straight across the bay; the boat with two oars
drum; found a painted drum in the attic; carried it down the stairs; one of the sticks broke; Would the song not sound better with two?; One can drum, and the other can sing!; made so much music that people came to dance; the drum and the song
tent; found a small tent in a chest; carried the poles; the tent fell down on top of them; Who was holding the other pole?; You hold this side, and I hold that one!; slept in it under the stars; the tent under the stars
wheelbarrow; found a wheelbarrow behind the barn; cleaned its wheel; it tipped over and spilled all the leaves; Which of you can push it while sitting in it?; First I push you, and then you push me!; brought in all the leaves before dark; the ride in the wheelbarrow
cart; found a cart with four good wheels; oiled the wheels; the cart rolled away by itself into a hedge; Who steers, when both are pulling?; You steer, and I push!; won every race that week; the fast little cart
"""),
)
