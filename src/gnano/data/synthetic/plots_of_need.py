"""Stories of something missing, somebody stuck, something to be made or to be mended."""

from gnano.data.synthetic.grammar import table
from gnano.data.synthetic.plots import Plot

LOST = Plot(
    "[The Lost {THING}|{Hero} and the {THING}|Where Is the {THING}?|Looking for {a THING}]",
    """
<opening>
? <trait>
[Of all {his} things|More than anything], {hero} loved {a thing} that {elder} had given {him}.
| <he> had {a thing}, a present from {elder}, and {he} {use} [every day|whenever {he} could].
| {Hero}'s dearest [treasure|thing] was {a thing}. [On good days|After lunch] {he} {use}.

<oneday> the {thing} was gone.[| {Hero} looked under the bed and in every corner.]
| <oneday> {hero} [could not find|went to look for] the {thing}, but its place was empty.
| <oneday> {hero} reached for the {thing}, and it was not there.
? <sky>
{Hero} [felt|was] <sad>. [The {thing} could be anywhere!|Where could the {thing} be?|{He} did not
  know where to begin.]
| "My {thing}!" cried {hero}. "[I had it yesterday|It was here this morning|{Elder} gave it to me]!"

{Friend.intro} [came by|heard the noise|saw {hero}'s face] and asked [what was wrong|what had
  happened].
"[When did you last have it|Where were you when you last had it]?" asked {friend}.
| "Let us [think|go back step by step]," said {friend}. "[Where did you go|What did you do]
  yesterday<dear>?"
"[I remember|I think] I was [near|not far from] {near}," said {hero}.
| {Hero} thought hard. "Yesterday I went to {near}," {he} said [slowly|at last].
So [the two|they] [walked|ran|hurried] to {near} and looked [carefully|everywhere|high and low].
| Together they went back to {near}. [At first they saw no {thing}|They searched a long time for the
  {thing}].
[There|At last they saw it]: the {thing} was {spot}!
| Then {friend} pointed. "Look!" There it was, {spot}.
| And {spot}, a little [dusty|wet] but safe, [they found|was] the {thing}.

<thanks>
? {Elder} laughed when {elder.he} heard it. "[Now you know|So you see]," {elder.he} said, "[two
  pairs of eyes
  see more than one|a lost thing waits for a patient friend]."
{Hero} tied a [blue|yellow] ribbon to the {thing} so that it would never be lost again.
| After that {hero} always put the {thing} [in its place|on the same shelf] before {he} went to
  sleep.
| {Hero} held the {thing} [tightly|with both hands] all the way home.
? <ending>
""",
    table("""
thing; use; near; spot; dream
red kite; flew it over the fields; the old oak; [high in the branches|in a bush behind the tree];
  the kite in the oak
silver whistle; played a tune on it; the stream; [between two wet stones|in the tall grass]; the
  whistle by the stream
woollen scarf; wore it; the market; [on a nail beside the fish stall|over the back of a bench]; the
  scarf that went to market
wooden boat; sailed it; the pond; [among the reeds|under the little bridge]; the boat on the pond
blue ball; kicked it about; the mill; [behind the flour sacks|under a cart]; the blue ball at the
  mill
green umbrella; took it along on walks; the bus stop; [leaning against the wall|under the seat]; the
  umbrella that waited
box of paints; painted with it; the apple trees; [on a stump|in the grass beside a ladder]; the
  colours under the apple trees
small drum; beat it; the barn; [on a bale of straw|behind the barn door]; the drum in the barn
brass key; turned it in an old lock; the well; [in a crack of the wall|beside the bucket]; the key
  at the well
straw hat; wore it; the beach; [on top of a sandcastle|behind a big rock]; the hat on the beach
picture book; read in it; the library steps; [on the top step|behind a flower pot]; the book on the
  steps
magnifying glass; looked at ants with it; the flower beds; [under a cabbage leaf|beside a watering
  can]; the glass among the flowers
yellow lantern; lit it; the garden gate; [on the gatepost|under the hedge]; the lantern at the gate
little flute; played it; the hill; [on a flat stone|in a patch of clover]; the flute on the hill
bag of marbles; counted them in it; the school wall; [in a hole below the wall|under some leaves];
  the marbles by the wall
"""),
)

RESCUE = Plot(
    "[The {BEAST} in Trouble|{Hero} Saves {a BEAST}|A Small Voice|Help for {a BEAST}]",
    """
<opening>
<trait>
? [Not far away|Nearby] lived {friend.intro}, who [came to play|visited] almost every day.

<oneday> {hero} was [walking|playing|picking berries] near {place} when {he} heard [a tiny|a
  faint|an odd] sound.
? "[Did someone call|Who is there|Is that a bird]?" {he} [wondered|asked softly].
It was {a beast}! It was {stuck}, and it could not [get out|get away|move].
| {Hero} [looked closer|went nearer] and saw {a beast} that was {stuck}.
The poor {beast} [trembled|looked up with big eyes|was cold and afraid].
| "Do not be afraid," [whispered|said] {hero} to the {beast}. "[I will help you|I am your friend],
  little {beast}."

First {hero} tried to [reach it|free it] alone, but {why}.
| <he> tried [once|twice], but {why}.
So {he} ran to [find|fetch] {friend}. "[Come quickly|Hurry]<mate>!" {he} [called|cried]. "{A beast}
  needs our help!"
| "I need [help|a friend]," thought {hero}, and {he} hurried to {friend.intro}.
{Friend} [thought for a moment|did not wait] and [brought|came back with] {tool}.
| "[I know what we need|I have an idea]," said {friend}. "We can use {tool}!"
[Slowly and gently|Very carefully|With great care] they {freed}.
? For a moment [nothing happened|it was very still], and {hero} held {his} breath.

The {beast} was free! It {thanks}.
| At last the {beast} was safe. It {thanks}, and {hero} felt <glad>.
? {Elder} [heard about it|saw them come home] and said, "[Even the smallest creature is worth an
  afternoon|A kind heart
  is stronger than a strong arm|You were right to ask for help]."
<thanks>
| <ending>
? [Some days|A week|A month] later the {beast} came back [to visit|with two others], and {hero}
  [was|felt] <glad>.
""",
    table("""
beast; place; stuck; why; tool; freed; thanks; dream
kitten; the old elm; sitting on a branch high above the ground; the trunk was too smooth to climb; a
  ladder; climbed up and carried it down; purred like a tiny engine; the kitten in the elm
duckling; the road; sitting at the bottom of a deep ditch; the sides were too steep; a long flat
  board; let down the board so that it could walk out; ran back to its mother; the duckling in the
  ditch
sparrow; the barn; tangled in a piece of net; the knots were too tight; a pair of scissors; cut the
  net thread by thread; flew up and sang; the sparrow in the net
baby goat; the fence; caught with its head between two boards; the boards would not bend; a bar of
  soap; made the wood slippery and pushed its head back; jumped in a circle; the goat in the fence
turtle; the beach; lying on its back in the hot sand; it was too heavy to turn over; a strong stick;
  pushed the stick under the shell and turned it over; walked off into the waves; the turtle on the
  sand
puppy; the river; standing on a rock with water all around; the current was too strong; a long rope
  and a basket; pulled the basket with the puppy across; wagged its tail; the puppy on the rock
butterfly; the greenhouse; caught in an old spider's web; their own fingers were too clumsy for such
  thin wings; a soft paintbrush; brushed the threads away; opened its wings and danced above the
  flowers; the butterfly and the paintbrush
young crow; the mill; stuck in a narrow pipe; the pipe was too deep; a bucket of grain; filled the
  pipe with grain until it could climb out; called loudly and ate some of the grain; the crow in the
  pipe
lamb; the bog; sunk up to its knees in the mud; the mud was too soft to stand on; an old wooden
  door; laid the door on the mud and pulled it out; shook itself and splashed them both; the lamb in
  the mud
beetle; the rain barrel; swimming round and round in the water; the barrel was too high to see into;
  a big leaf on a stick; held out the leaf like a boat until it climbed on; dried its wings and
  hummed away; the beetle in the barrel
"""),
)

GIFT = Plot(
    "[A Present for {ELDER}|{Hero} and the {GIFT}|The {GIFT}|What {Hero} Made]",
    """
<opening>
? <trait>
[Soon|In three days|On Sunday] it would be {elder}'s birthday, and {hero} wanted to [give|bring]
  {elder.him} something special.
| {Elder} had been [ill|away] for a long time, and {hero} wanted to welcome {elder.him} with a
  present.

"I will {make} {a gift}," {hero} [decided|said to {himself}]. "{Elder} will [love|like] it."
| {Hero} thought [all morning|for a long time]. Then {he} knew: {he} would {make} {a gift}!
<oneday> {he} [began|set to work|started early].
? <sky>
But [soon|then] {hero} had a problem. {Hero} needed {missing}, and there was [not enough|none] in
  the house.
| Everything went well until {he} saw that {he} had no {missing}.
{Hero} looked [in every box|on every shelf|all over the house], but {he} found only [dust|old
  paper|a sleepy spider].
| "Without {missing} I cannot finish," sighed {hero}. <he> was <sad>.

[Just then|At that moment|Before long] {friend.intro} knocked at the door. "[Why do you look so
  sad|What is wrong|What are you doing]<dear>?" {friend} asked.
"I am making {a gift}, but I have no {missing}," [said|answered] {hero}.
| "I wanted to {make} {a gift}, but there is no {missing}," {he} [said|explained].
"I have {missing}," said {friend}. "[I kept it for a day like this|You may have it|Take what you
  need]<dear>!"
| {Friend} ran home and came back with {missing}. "[We can share|I do not need it]," {friend.he}
  said.
[Side by side|Together] they {work} until [the sun went down|evening came|the clock struck six].
| {Hero} {work}, and {friend} helped. [They laughed a lot over the {gift}|It took {hero} and
  {friend} the whole afternoon].
? The {gift} was not perfect, but it was made with [love|care|four busy hands].

On the [great|big] day {hero} [carried|brought] the {gift} to {elder}.
"[Did you make this yourself|Is this really for me]?" asked {elder}. "{Praise}"
| {Elder} looked at the {gift} for a long time. Then {elder.he} [smiled|wiped {elder.his} eyes] and
  said, "{Praise}"
"{Friend} helped me," said {hero}, because that was [true|only fair].
? <ending>
""",
    table("""
gift; make; missing; work; praise; dream
striped scarf; knit; blue wool; knitted row after row; It is as warm as a hug!; the striped scarf
apple pie; bake; flour; rolled the dough and cut the apples; I can smell the cinnamon from here!;
  the smell of apple pie
birdhouse; build; good glue; measured, sawed and hammered; The birds will be so pleased!; the first
  bird in the birdhouse
honey cake; bake; honey; stirred the batter and watched the oven; I have never tasted a better
  cake!; the honey cake
picture of the sea; paint; blue paint; painted wave after wave; I can almost hear the water!; the
  painted sea
paper lantern; make; thin paper; cut, folded and glued; It shines like a little moon!; the lantern
  that shone like a moon
wooden spoon; carve; fine sandpaper; carved and smoothed the wood; My soup will taste twice as
  good!; the wooden spoon
bead necklace; make; strong thread; threaded bead after bead; I will wear it every Sunday!; the
  beads in the sun
pot of soup; cook; salt; washed, chopped and stirred; Nothing is better on a cold day!; the warm
  soup
patchwork cushion; sew; red cloth; cut the squares and sewed them together; My old chair will be
  proud!; the bright cushion
song book; write; clean paper; wrote down every song they knew; We will sing them all tonight!; the
  songs they sang
clay bowl; shape; wet clay; shaped the bowl and painted its rim; It is just right for my morning
  porridge!; the clay bowl
"""),
)

SECRET = Plot(
    "[The Broken {THING}|{Hero} Tells the Truth|An Accident|{Elder}'s {THING}]",
    """
<opening>
? <trait>
{Elder} had {a thing} that {elder.he} {loved}.
| The most beautiful thing in {elder}'s house was {a thing} that {elder.he} {loved}.

<oneday> {hero} was playing [indoors|in {elder}'s room|near the table] although {he} knew that it
  was not allowed.
| <oneday> {hero} visited {elder}, and for a moment {he} was alone in the room.
Then it happened: {accident}. | All of a sudden {accident}.
{Hero} stood quite still. [{Hero}'s heart beat loudly|If only the {thing} were whole again, {he}
  thought].
Quickly {he} hid it [under a cushion|behind the curtain|in a drawer] and [ran outside|went home].
? Nobody had seen it, [but somehow that did not help {hero}|and yet the sun seemed less bright to
  {hero}].

All day {hero} was <sad>. <he> could not [eat|play|laugh].
| At supper {hero} could not eat, and at night {he} lay awake and thought of the {thing}.
{Friend.intro} saw it at once. "[Something is wrong|You are so quiet]," said {friend}. So {hero}
  told {friend.him} [everything|about the {thing}].
"[You must tell {elder}|A secret like that only grows heavier]," said {friend}. "I will [come|go]
  with you<dear>."
| "It was an accident," said {friend}. "[Hiding the {thing} was not|But {elder} should know about
  the {thing}]."

[The next morning|An hour later] {hero} stood before {elder}. "I [broke|spoiled] your {thing}," {he}
  said, "and I hid it. I am sorry, {elder}."
| "It was me," said {hero} [in a small voice|with {his} eyes on the floor]. "I am so sorry about
  your {thing}."
{Elder} was silent for a moment. Then {elder.he} said, "[Thank you for telling me|The truth is worth
  more to me than {a thing}]."
| {Elder} [sighed|looked at the {thing}] and then smiled. "[Things break|I broke one, too, when I
  was young]," {elder.he} said.
Together they {mend}. | "Come, help me," said {elder}, and they {mend}.
? {Result}

And {hero} felt [as light as a feather|as if a stone had fallen from {his} heart].
| {Hero} slept [well|soundly] that night, for {he} had no secret any more.
? <ending>
""",
    table("""
thing; loved; accident; mend; result; dream
blue vase; filled with fresh flowers every week and loved; {his} elbow touched the vase, and it fell
  to the floor; glued the pieces, one after the other; One could still see the lines, but the
  flowers did not mind.; the blue vase
music box; wound up every evening and loved; {he} turned the key too far, and something inside went
  crack; opened the lid and set the spring right again; It played a little slower now, but it
  played.; the music box
teapot; used every afternoon and loved; the teapot slipped from {his} hands, and its handle broke
  off; made a new handle of bent wire; It poured as well as ever.; the teapot
sewing basket; had from {elder.his} own mother and loved; {he} sat down on it, and the lid split;
  tied the lid with a leather string; It even closed better than before.; the sewing basket
picture frame; dusted every Sunday and loved; {his} ball flew against the wall, and the frame came
  down; fitted a new piece of wood; The picture hung straight again.; the picture on the wall
table lamp; lit every evening and loved; {he} ran round the table and knocked the lamp over;
  straightened the metal and put in a new wick; That night its light was as warm as ever.; the table
  lamp
"""),
)
