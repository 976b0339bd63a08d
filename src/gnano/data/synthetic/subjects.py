"""Things of the world, and what can be said of each.

Every saying is a predicate of one subject ("floats on water"), so that a lesson can put "it" or
the name of the thing before it. They are kept to what is simply true.
"""

from gnano.data.synthetic.grammar import table

# the sayings are parted by '/': each is a predicate of its own
SUBJECTS = [
    (row["subject"], row["kind"], row["sayings"].split(" / "))
    for row in table("""
subject; kind; sayings
a thermometer; an instrument; measures how warm or cold something is / may hold a liquid that rises
  in a thin tube when it gets warmer / helps a doctor to find a fever / shows zero degrees Celsius
  when water begins to freeze
a compass; an instrument; has a needle that is a small magnet / points to the north / helps sailors
  and hikers to find their way / works without a battery / was used on ships hundreds of years ago
a clock; a machine; measures time / counts something that repeats, such as the swing of a pendulum /
  has a short hand for the hours and a long one for the minutes / needs energy from a spring, a
  weight or a battery
a telescope; an instrument; makes distant things look nearer / gathers light with a lens or a mirror
  / shows craters on the Moon / sees more when it is wider / was turned to the sky by Galileo in
  1609
a microscope; an instrument; makes tiny things look large / shows the cells of a leaf / bends light
  with glass lenses / lets us see living things in a drop of pond water
a violin; a musical instrument; has four strings / is played with a bow / has a hollow wooden body
  that makes the sound louder / gives a higher tone when a string is made shorter with a finger
a drum; a musical instrument; makes sound when its skin is struck / sounds higher when the skin is
  pulled tighter / keeps the beat in a band / is one of the oldest instruments in the world
a flute; a musical instrument; sounds when air is blown across a hole / has a column of air that
  trembles inside / plays a higher note when fewer holes are covered / can be made of wood, metal or
  bone
a piano; a musical instrument; has eighty-eight keys in its usual form / strikes its strings with
  small hammers / can play many notes at once / has long strings for the low notes
a bell; a musical instrument; rings because its metal trembles when it is struck / sounds lower when
  it is larger / is often cast in bronze / has called people together for hundreds of years
a lever; a simple machine; turns around a fixed point / lets a small push lift a heavy load / works
  best when the arm on your side is long / is at work in a seesaw and in a pair of scissors
a pulley; a simple machine; is a wheel with a groove for a rope / changes the direction of a pull /
  makes lifting easier when several are used together / helps to raise a flag or a sail
a wheel; a simple machine; rolls instead of sliding / turns on an axle / makes it easier to move
  heavy things / was first used thousands of years ago
a magnet; an object; pulls things made of iron / has a north end and a south end / pushes away the
  same end of another magnet / works even through paper / is part of every electric motor
a mirror; an object; throws back the light that falls on it / swaps front and back in what we see /
  is often a sheet of glass with a thin layer of metal / lets a driver see the road behind
a candle; a source of light; burns wax that has melted and turned into vapour / has a wick of
  twisted thread / goes out when it gets no air / was a common light before electric lamps
a bicycle; a vehicle; has two wheels and a chain / turns the push of our legs into motion / is
  steered with a handlebar / needs no fuel but food for its rider
a sailing boat; a vehicle; is pushed by the wind / has a keel that keeps it from sliding sideways /
  can zigzag against the wind / is steered with a rudder
a hot-air balloon; an aircraft; rises because hot air is lighter than cold air / carries its
  passengers in a basket / goes where the wind takes it / sinks again when the air inside cools
a bridge; a building; carries a path over water or a valley / may stand on arches that press against
  each other / may hang from strong cables / needs small gaps because it grows a little in the heat
a lighthouse; a building; warns ships of rocks / has a strong lamp at its top / can often be known
  by the rhythm of its flashes / stands where the coast is dangerous
a windmill; a building; uses the wind to turn a wheel / ground grain into flour in earlier times /
  must face the wind to turn well / has modern cousins that make electric power
an oak; a tree; grows from an acorn / can live for several hundred years / has hard wood that was
  used for ships / loses its leaves in autumn in cold lands / feeds jays and squirrels
a pine; a tree; has needles instead of broad leaves / stays green in winter / carries its seeds in
  cones / has sticky resin that closes its wounds
a cactus; a plant; stores water in its thick stem / has spines that keep animals away / grows in dry
  places / loses little water because it has no broad leaves
a sunflower; a plant; has a large head made of many tiny flowers / gives seeds that are pressed for
  oil / can grow taller than a person / turns its young flowers toward the sun
a potato; a vegetable; grows under the ground / is a thick part of the stem of the plant / is full
  of starch / came from South America to the rest of the world / should not be eaten when it is
  green
a tomato; a fruit; is used as a vegetable in the kitchen / needs sun and warmth to ripen / holds its
  seeds in soft pulp / first grew in the Americas
an apple; a fruit; grows on a tree from a pollinated flower / has seeds in its core / turns brown
  when it is cut because air reaches it / keeps for months in a cool cellar
a bean; a vegetable; grows in a pod / climbs up a pole if it can / is rich in protein / makes the
  soil richer with the help of tiny bacteria on its roots
rice; a grain; is a kind of grass / often grows in fields covered with water / feeds about half of
  the people on Earth / swells when it is cooked in water
wheat; a grain; is a kind of grass / is ground into flour for bread / grows in large fields / turns
  from green to gold when it is ripe
a mushroom; a fungus; is not a plant, because it makes no food from light / grows from fine threads
  in the ground or in wood / spreads by tiny spores / may be very poisonous
yeast; a fungus; is made of tiny living cells / eats sugar and gives off gas / makes bread dough
  rise / stops working when it gets too hot
bread; a food; is made from flour, water and often yeast / rises because bubbles of gas are caught
  in the dough / gets a brown crust in the hot oven / grows hard when it dries
cheese; a food; is made from milk / begins when the milk is made to set / may ripen for months /
  keeps longer than fresh milk
honey; a food; is made by bees from nectar / keeps for years in a closed jar / is thick because it
  holds little water / is sweeter than most fruit
salt; a mineral; is taken from the sea or from mines / dissolves in water / keeps some foods from
  spoiling / lowers the temperature at which water freezes
glass; a material; is made by melting sand with other minerals / lets light pass through / breaks
  easily when it is struck / can be melted and used again
paper; a material; is mostly made from wood / is pressed from wet fibres that dry in a thin sheet /
  was invented in China / can be recycled several times
wood; a material; comes from the trunks of trees / usually floats on water / carries heat poorly,
  which is why it makes good handles / shows one ring for each year of growth in many trees
iron; a metal; is pulled by a magnet / rusts in damp air / becomes steel when a little carbon is
  added / melts only in very great heat
copper; a metal; is reddish brown / carries electricity very well / turns green in the weather over
  many years / is drawn into wires
gold; a metal; does not rust / is soft enough to be hammered into thin leaves / is very heavy for
  its size / is found in rocks and rivers
wool; a material; grows on sheep / keeps us warm because it holds air / can be spun into yarn /
  shrinks when it is washed too hot
cotton; a material; grows as white fluff around the seeds of a plant / is spun into thread / soaks
  up water well / needs a warm climate to grow
the Sun; a star; gives the Earth light and warmth / is so large that a million Earths would fit
  inside it / is made mostly of hydrogen and helium / sends light that needs about eight minutes to
  reach us
the Moon; a natural satellite; travels around the Earth in about a month / has no air to breathe /
  shines because the Sun lights it / causes most of the tides / shows us always the same side
a comet; a body in space; is made of ice and dust / grows a long tail when it comes near the Sun /
  may return after many years / has a tail that points away from the Sun
the Earth; a planet; travels around the Sun once a year / turns once a day / is covered by water for
  about seven tenths / has one moon / is wrapped in a layer of air
a volcano; a kind of mountain; has an opening that leads deep into the ground / may throw out ash
  and melted rock / can sleep for hundreds of years / makes soil that is good for plants
a river; a body of water; flows from high ground to low ground / often begins at a spring / carries
  sand and stones along / usually ends in a lake or a sea
a glacier; a body of ice; is made of snow that was pressed into ice / moves slowly downhill / carves
  valleys into the rock / stores fresh water
a desert; a landscape; gets very little rain / may be hot or cold / is often very cool at night /
  has plants and animals that save water
a rainbow; something in the sky; appears when the Sun shines on drops of rain / always stands
  opposite the Sun / has red on its outer edge / splits white light into its colours
thunder; a sound; is made when lightning heats the air in an instant / reaches us later than the
  flash / can be heard from many kilometres away / follows about three seconds later for each
  kilometre
snow; a kind of weather; is made of tiny ice crystals / often forms flakes with six sides / holds
  much air and so keeps the ground from freezing hard / melts above zero degrees Celsius
the wind; moving air; blows from places of high pressure to places of low pressure / is named after
  the direction it comes from / carries seeds and sand / can turn the blades of a mill
the heart; a muscle; pumps blood through the body / beats faster when we run / is about as big as a
  fist / works all our life without a rest
the skin; an organ; protects the body / cools us with sweat / feels heat, cold and touch / heals
  itself after a small cut
a lung; an organ; takes in air / passes oxygen to the blood / gives off carbon dioxide / lies beside
  the heart
the human eye; an organ; lets in light through the pupil / has a lens that makes a sharp picture /
  makes the pupil smaller in bright light / sends signals to the brain
a tooth; a part of the body; is covered with enamel, the hardest stuff in the body / is alive inside
  / needs to be cleaned every day / may fall out in childhood and be followed by a new one
""")
]
